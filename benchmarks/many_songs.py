"""Many made-up songs in one run: memory over time, and the start of a run that resumes.

python benchmarks/many_songs.py [--songs 100000] [--resumed 100000 1000000]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from bench import WATCH_MEMORY, in_a_process, keep

from melgenre.data.mel_settings import MelSettings
from melgenre.inference.classifier import GenreClassifier

TINY = MelSettings(sample_rate=1000, n_fft=128, hop_length=64, n_mels=32, duration=1.0)
"""Of the made-up songs: their images are so small that files and rows take most of the time."""

PROCESS = (
    WATCH_MEMORY
    + """
import json, sys, time
folder, out = sys.argv[1], sys.argv[2]
def measure(work, module):
    begun, parallel_map = [], module.parallel_map
    def note_and_map(*arguments, **options):
        begun.append(time.perf_counter() - started)
        return parallel_map(*arguments, **options)
    module.parallel_map = note_and_map
    over_time = watch_memory(0.2)
    started = time.perf_counter()
    rows = work()
    seconds = time.perf_counter() - started
    print(json.dumps([rows, begun[0], seconds, over_time]))
"""
)
CLASSIFY = """
from melgenre.inference import batch
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.songs import list_songs
model = GenreClassifier.load(sys.argv[3])
songs = lambda: batch.predict_songs(model, list_songs(folder), out, progress=False)
measure(lambda: sum(1 for _ in songs()), batch)
"""
EMBED = """
from melgenre.inference import batch
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.embeddings import embed_folder
model = GenreClassifier.load(sys.argv[3])
measure(lambda: len(embed_folder(model, folder, out, progress=False).songs), batch)
"""
EXTRACT = """
from melgenre.data.mel_settings import checked_settings
from melgenre.data.tracks import find_tracks
from melgenre.features import images
settings = checked_settings(json.loads(sys.argv[3]))
extract = lambda tracks: images.extract_melspectrograms(
    tracks, out, settings=settings, progress=False
)
measure(lambda: len(extract(find_tracks(folder))), images)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--songs", type=int, default=100_000)
    parser.add_argument("--resumed", type=int, nargs="*", default=[100_000, 1_000_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.songs:
            rows, more = made_up_songs(Path(folder), options.songs)
            keep("many_songs", rows, megabytes_every_ten_seconds=more)
        for count in options.resumed:
            keep(f"resume_{count}", resume(folder, count))


def make_songs(folder, count, *, empty=False):
    """So many files of a second in folders of a thousand: 1 kB each, or empty."""
    song = folder / "song.wav"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 1100)
    soundfile.write(song, noise, 1000, subtype="PCM_U8")
    content = b"" if empty else song.read_bytes()
    song.unlink()
    for start in range(0, count, 1000):
        album = folder / f"genre {start // 1000 % 16}" / f"{start // 1000:04d}"
        album.mkdir(parents=True)
        for number in range(start, min(start + 1000, count)):
            (album / f"{number:07d}.wav").write_bytes(content)


def tiny_model(folder):
    """A small network for tiny images: it predicts nothing of use."""
    program = Path(__file__).with_name("tiny_model.py")
    settings = json.dumps(vars(TINY))
    command = [sys.executable, "-W", "ignore", str(program), str(folder), settings]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def made_up_songs(folder, count):
    """Genres and embeddings of many tiny songs in one run, with the memory over time."""
    make_songs(folder / "songs", count)
    tiny_model(folder / "model")
    rows, more = [], {}
    for what, program, out in (("genres", CLASSIFY, "g.csv"), ("embeddings", EMBED, "e.npz")):
        done, _, seconds, over_time = in_a_process(
            PROCESS + program, folder / "songs", folder / out, folder / "model"
        )
        tenth = over_time[len(over_time) // 10]
        rows.append({
            "what": what, "songs": done, "seconds": round(seconds), "peak MB": max(over_time),
            "MB after a tenth": tenth, "MB at the end": over_time[-1],
        })  # fmt: skip
        more[what] = over_time[::50]
    return rows, more


def resume(folder, count):
    """Seconds and memory of a run that has nothing left to do."""
    from melgenre.inference.batch import _columns
    from melgenre.inference.song_table import song_table
    from melgenre.inference.songs import list_songs
    from melgenre.inference.vector_store import write_embeddings

    folder = Path(folder, f"resumed {count}")
    make_songs(folder / "songs", count, empty=True)
    tiny_model(folder / "model")
    classifier = GenreClassifier.load(folder / "model")
    columns = _columns(classifier)
    names, stamps = [], []
    with song_table(folder / "g.csv", columns, classifier.fingerprint) as table:
        for song in list_songs(folder / "songs"):
            row = dict.fromkeys(columns[2:-3], 0.1234) | {"song": song.name, "genre": "a"}
            table.write(row | {"modified": song.stamp, "model": classifier.fingerprint})
            names.append(song.name)
            stamps.append(song.stamp)
    width = 512
    blocks = (np.ones((min(8192, count - at), width), np.float32) for at in range(0, count, 8192))
    write_embeddings(folder / "e.npz", names, stamps, blocks, classifier.fingerprint)
    rows = []
    for what, program, out in (("genres", CLASSIFY, "g.csv"), ("embeddings", EMBED, "e.npz")):
        measured = in_a_process(PROCESS + program, folder / "songs", folder / out, folder / "model")
        rows.append(resumed(what, *measured))
    rows.append(resume_images(folder, count))
    shutil.rmtree(folder)
    return rows


def resume_images(folder, count):
    """As `resume`, for images that exist."""
    from melgenre.data.mel_settings import save_settings
    from melgenre.data.tracks import find_tracks
    from melgenre.features.images import _image_files
    from melgenre.features.sources import RECORDS_FILE, sources_of, write_records

    images = folder / "images"
    images.mkdir()
    save_settings(TINY, images)
    tracks = find_tracks(folder / "songs")
    files = list(_image_files(tracks, images))
    for place in {os.path.dirname(file) for file in files}:
        os.makedirs(place)
    for file in files:
        Path(file).touch()
    names = [os.path.relpath(file, images) for file in files]
    records = dict(zip(names, sources_of(tracks["path"].tolist(), images), strict=True))
    write_records(images / RECORDS_FILE, records)
    settings = json.dumps(vars(TINY))
    return resumed("images", *in_a_process(PROCESS + EXTRACT, folder / "songs", images, settings))


def resumed(what, done, begun, seconds, over_time):
    return {
        "what": what, "songs": done, "seconds until the first song would begin": round(begun, 1),
        "seconds to the end": round(seconds, 1), "peak MB": max(over_time),
    }  # fmt: skip


if __name__ == "__main__":
    main()
