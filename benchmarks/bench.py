"""What the benchmarks share: clips, rounds in which every way has its turn, and what is kept."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import date
from itertools import cycle, islice
from pathlib import Path

import librosa
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from melgenre.data.collection import load_collection
from melgenre.data.mel_settings import MelSettings
from melgenre.evaluation.provenance import git_commit, package_versions
from melgenre.features.images import extract_melspectrograms
from melgenre.files import project_folder

RESULTS = Path(__file__).parent / "results"
SETTINGS = MelSettings()


def clips(n):
    """Paths of n recordings of 30 s, by repetition where there are fewer, and whose they are."""
    tracks = load_collection("auto").dropna(subset="path")
    return list(islice(cycle(tracks["path"]), n)), str(tracks["collection"].iloc[0])


def tracks_with_images():
    """The collection that notebooks would use, each track with its image."""
    tracks = load_collection("auto")
    images = project_folder() / "data" / "images" / tracks["collection"].iloc[0]
    return extract_melspectrograms(tracks, images)


@contextmanager
def nothing_kept():
    """A folder in place of `data/features`, so that every feature is computed anew."""
    # Here alone: other benchmarks measure without fastai.
    from melgenre.training import cached_features, export, learner

    modules = (cached_features, export, learner)
    kept = cached_features.features_cache
    with tempfile.TemporaryDirectory() as folder:
        for module in modules:
            module.features_cache = lambda: Path(folder)
        try:
            yield Path(folder)
        finally:
            for module in modules:
                module.features_cache = kept


def librosa_and_pillow(path, target):
    """The image that a network wants, as one would write it oneself."""
    y, rate = librosa.load(path)
    mel = librosa.feature.melspectrogram(
        y=y, sr=rate, n_fft=SETTINGS.n_fft, hop_length=SETTINGS.hop_length, n_mels=SETTINGS.n_mels
    )
    save(librosa.power_to_db(mel, ref=np.max, top_db=80), target)


def save(decibels, target, **options):
    """Write decibels between -80 and 0 as a grey PNG."""
    Image.fromarray(((decibels / 80 + 1) * 255).astype(np.uint8)).save(target, **options)


def take_turns(ways, *, rounds=5):
    """Seconds of each way (a dict of functions) in every round; a first round is not counted.

    The ways take turns, so that whatever else the machine does meets all of them.
    """
    seconds = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def median(seconds):
    return statistics.median(seconds)


def in_a_process(program, *arguments):
    """Run a few lines of Python by themselves; what they print, as JSON."""
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(ran.stderr)
    return json.loads(ran.stdout.splitlines()[-1])


def machine():
    """What the figures depend on."""
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((li.partition(":")[2].strip() for li in lines if "model name" in li), "")
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": model, "cores": os.cpu_count(), "gpu": gpu, "system": platform.system(),
        "versions": package_versions(), "commit": git_commit(), "date": str(date.today()),
    }  # fmt: skip


def keep(name, rows, **more):
    """Print a table of rows (dicts), and keep it with the machine it was measured on."""
    for row in rows:
        print("  ".join(f"{key}: {value}" for key, value in row.items()), flush=True)
    RESULTS.mkdir(exist_ok=True)
    record = {"rows": rows, **more, "machine": machine()}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def plot_bars(name, rows, value, label, *, log=False):
    """A bar for each row, named by its first column."""
    _, ax = plt.subplots(figsize=(8, 0.5 + 0.4 * len(rows)))
    names = [str(next(iter(row.values()))) for row in rows]
    bars = ax.barh(names, [row[value] for row in rows], color="tab:blue")
    ax.bar_label(bars, fmt="%.3g", padding=3)
    ax.set(xlabel=label, xscale="log" if log else "linear")
    ax.margins(x=0.12)
    ax.invert_yaxis()
    plt.savefig(RESULTS / f"{name}.png", dpi=90, bbox_inches="tight")
