"""Growth of time and memory with the number of clips and the length of a recording.

python benchmarks/growing.py MODEL [--clips 100 1000 10000] [--minutes 1 10 60 180]
"""

import argparse
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundfile
from bench import RESULTS, clips, in_a_process, keep

MEMORY = """
import json, re, sys, time
from pathlib import Path
def kilobytes(what):
    return int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
def measure(work):
    idle, started = kilobytes("VmRSS"), time.perf_counter()
    work()
    taken = time.perf_counter() - started, (kilobytes("VmHWM") - idle) / 1024
    print(json.dumps(taken))
"""
IMAGES = (
    MEMORY
    + """
import pandas as pd
from melgenre.features.images import extract_melspectrograms
paths = json.loads(Path(sys.argv[1]).read_text())
def table(paths):
    return pd.DataFrame({"track_id": [f"clip.{i}" for i in range(len(paths))], "genre": "all",
                         "path": paths})
extract_melspectrograms(table(paths[:9]), sys.argv[2] + "/warm", progress=False)
measure(lambda: extract_melspectrograms(table(paths), sys.argv[2] + "/all", progress=False))
"""
)
RECORDING = (
    MEMORY
    + """
from melgenre.inference.classifier import GenreClassifier
classifier = GenreClassifier.load(sys.argv[1])
classifier.predict(sys.argv[2])
measure(lambda: classifier.predict(sys.argv[3]))
"""
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--clips", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 10, 60, 180])
    options = parser.parse_args()

    rows = []
    for n in options.clips:
        with tempfile.TemporaryDirectory() as folder:
            listed = Path(folder, "paths.json")
            listed.write_text(json.dumps([str(Path(path).resolve()) for path in clips(n)[0]]))
            seconds, megabytes = in_a_process(IMAGES, listed, folder)
        rows.append({"what": "images of clips", "how many": n, "seconds": round(seconds, 1),
                     "MB over idle": round(megabytes)})  # fmt: skip
    clip = clips(1)[0][0]
    y, rate = soundfile.read(clip, dtype="int16")
    for minutes in options.minutes:
        with tempfile.TemporaryDirectory() as folder:
            song = Path(folder, "song.flac")
            with soundfile.SoundFile(song, "w", rate, 1) as file:
                for _ in range(2 * minutes):
                    file.write(np.resize(y, 30 * rate))
            seconds, megabytes = in_a_process(RECORDING, options.model, clip, song)
        rows.append({"what": "minutes of a recording", "how many": minutes,
                     "seconds": round(seconds, 1), "MB over idle": round(megabytes)})  # fmt: skip
    keep("growing", rows)
    plot(rows)


def plot(rows):
    """Time and memory against size, one column of axes per kind of work."""
    kinds = list(dict.fromkeys(row["what"] for row in rows))
    _, axes = plt.subplots(2, len(kinds), figsize=(5 * len(kinds), 6), squeeze=False)
    for column, what in enumerate(kinds):
        some = [row for row in rows if row["what"] == what]
        x = [row["how many"] for row in some]
        for ax, value in zip(axes[:, column], ("seconds", "MB over idle"), strict=True):
            ax.plot(x, [row[value] for row in some], marker="o")
            ax.set(xlabel=what, ylabel=value, xlim=(0, None), ylim=(0, None))
    plt.tight_layout()
    plt.savefig(RESULTS / "growing.png", dpi=80)


if __name__ == "__main__":
    main()
