"""Time and memory of a head for a million tracks, with made-up features on disk.

python benchmarks/million.py [--tracks 1000000] [--width 512] [--folder /tmp]

The shards have one black image per track and the features are random around a mean per genre, so
that only their number is real: no body has to run. Each step runs in a process of its own. Pages of
files, which the system can drop, do not count as its memory.
"""

import argparse
import hashlib
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from bench import WATCH_MEMORY, in_a_process, keep
from PIL import Image

from melgenre.data.image_files import GROUP_ROWS
from melgenre.data.mel_settings import MelSettings, save_settings
from melgenre.data.shards import shard_name
from melgenre.features.shards import MOST_TRACKS

GENRES = 16
STEPS = {
    "read the table of shards": "work = lambda: load_shards(folder)",
    "make DataLoaders of images": "tracks = table()\nwork = lambda: image_dataloaders(tracks)",
    "train a discriminant": "work = lambda: train('discriminant')",
    "train a head by gradients, one epoch": "work = lambda: train('texture')",
}
PROGRAM = """
import json, os, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from torch import nn
from melgenre.data.image_files import image_key
from melgenre.data.shards import load_shards
from melgenre.networks import BUILT_IN, _texture_head
from melgenre.training import cached_features, recipes
from melgenre.training.feature_store import FeatureStore
from melgenre.training.fit import fit
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.learner import genre_learner, predict_tracks

folder, width = Path(sys.argv[1]), int(sys.argv[2])
cached_features.features_cache = lambda: folder / "features"
recipes.RECIPES["texture"] = replace(recipes.RECIPES["texture"], freeze_epochs=1)

def table():
    tracks = load_shards(folder)
    return tracks.assign(split=np.where(np.arange(len(tracks)) % 20, "train", "valid"))

def learner(tracks, recipe):
    learn = genre_learner(image_dataloaders(tracks, batch_size=1024), BUILT_IN, recipe)
    head = _texture_head(width, len(learn.dls.vocab), recipes.RECIPES[recipe].body)
    learn.model = nn.Sequential(learn.model[0], head)
    return learn

def train(recipe):
    tracks = table()
    learn = learner(tracks, recipe)
    with learn.no_bar(), learn.no_logging():
        fit(learn)
        valid = tracks[tracks["split"] == "valid"]
        return (predict_tracks(learn, valid)["predicted"] == valid["genre"]).mean()

def fill():
    tracks = table()
    learn = learner(tracks.groupby(["genre", "split"]).head(2), "texture")
    body = cached_features._digest(learn.model[0])
    store = FeatureStore(folder / "features" / f"{BUILT_IN}-{body}-cpu-float32")
    means = np.random.default_rng(0).normal(0, 0.15, (16, width))
    for start in range(0, len(tracks), 10_000):
        some = tracks.iloc[start : start + 10_000]
        noise = np.random.default_rng(start).normal(size=(len(some), width))
        keys = [bytes.fromhex(image_key(image)) for image in some["image"]]
        features = means[some["genre"].str[5:].astype(int)] + noise
        store.append(np.array(keys, "S16"), features.astype(np.float32))

WORK
over_time, started = watch_memory(0.02), time.perf_counter()
result = work()
seconds = time.perf_counter() - started
print(json.dumps([seconds, over_time[0], max(over_time),
                  result if isinstance(result, float) else None]))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512, help="number of features of a track")
    parser.add_argument("--folder", type=Path, help="for the temporary files (3 GB)")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        make_shards(Path(folder), options.tracks)

        def measure(work):
            program = WATCH_MEMORY + PROGRAM.replace("WORK", work)
            return in_a_process(program, folder, options.width)

        measure("work = fill")
        for what, work in STEPS.items():
            seconds, idle, peak, accuracy = measure(work)
            rows.append({
                "what": what, "tracks": options.tracks, "seconds": round(seconds, 1),
                "MB before": round(idle), "peak MB": round(peak),
            })  # fmt: skip
            if accuracy is not None:
                rows[-1]["accuracy"] = round(accuracy, 4)
    keep("million", rows, width=options.width)


def make_shards(folder, n_tracks):
    """Write shards of black images."""
    save_settings(MelSettings(), folder)
    Image.new("L", (MelSettings().columns, MelSettings().n_mels)).save(folder / "black.png")
    image = {"bytes": (folder / "black.png").read_bytes(), "path": "black.png"}
    count = -(-n_tracks // MOST_TRACKS)
    for number in range(count):
        names = [f"track {i}" for i in range(number, n_tracks, count)]
        md5 = [hashlib.md5(name.encode()).hexdigest() for name in names]
        columns = {
            "track_id": names, "genre": [f"genre{int(key[0], 16)}" for key in md5],
            "artist_id": names, "collection": ["made-up"] * len(names),
            "image_md5": md5, "source_md5": md5, "image": [image] * len(names),
        }  # fmt: skip
        file = folder / shard_name(number, count)
        pq.write_table(pa.table(columns), file, row_group_size=GROUP_ROWS)


if __name__ == "__main__":
    main()
