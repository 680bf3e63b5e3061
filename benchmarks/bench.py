"""Shared by the benchmarks: clips, alternating rounds, and the files of results."""

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
from melgenre.features.images import extract_melspectrograms, images_folder

RESULTS = Path(__file__).parent / "results"
SETTINGS = MelSettings()


def clips(n):
    """Paths of n recordings of 30 s, repeated if fewer exist, and their collection's name."""
    tracks = load_collection("auto").dropna(subset="path")
    return list(islice(cycle(tracks["path"]), n)), str(tracks["collection"].iloc[0])


def tracks_with_images():
    """The collection of the notebooks, with an image for each track."""
    tracks = load_collection("auto")
    return extract_melspectrograms(tracks, images_folder(tracks))


@contextmanager
def empty_features_cache():
    """A temporary folder in place of `data/features`: all features are computed again."""
    # Imported here: other benchmarks measure processes without fastai.
    from melgenre.training import cached_features

    usual = cached_features.features_cache
    with tempfile.TemporaryDirectory() as folder:
        cached_features.features_cache = lambda: Path(folder)
        try:
            yield Path(folder)
        finally:
            cached_features.features_cache = usual


def librosa_and_pillow(path, target):
    """The same image by the usual calls of librosa and Pillow."""
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

    The ways alternate, so that other processes of the machine slow all of them down alike.
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


WATCH_MEMORY = """
import re, threading, time
from pathlib import Path
def watch_memory(every):
    found = []
    def watch():
        while True:
            status = Path("/proc/self/status").read_text()
            found.append(round(int(re.search(r"RssAnon:\\s+(\\d+) kB", status)[1]) / 1024))
            time.sleep(every)
    threading.Thread(target=watch, daemon=True).start()
    return found
"""
"""First lines of a program for `in_a_process`: `watch_memory` gives a list of megabytes, without
pages of files, with one more every so many seconds."""


def in_a_process(program, *arguments):
    """Run lines of Python in a process of their own; returns the JSON that they print."""
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(ran.stderr)
    return json.loads(ran.stdout.splitlines()[-1])


def machine():
    """Hardware and versions that the results depend on."""
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
    """Print a table of rows (dicts), and write it to a file with the machine that ran it."""
    for row in rows:
        print("  ".join(f"{key}: {value}" for key, value in row.items()), flush=True)
    RESULTS.mkdir(exist_ok=True)
    record = {"rows": rows, **more, "machine": machine()}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def plot_bars(name, rows, value, label, *, log=False):
    """A bar chart with one bar per row, named by its first column."""
    _, ax = plt.subplots(figsize=(8, 0.5 + 0.4 * len(rows)))
    names = [str(next(iter(row.values()))) for row in rows]
    bars = ax.barh(names, [row[value] for row in rows], color="tab:blue")
    ax.bar_label(bars, fmt="%.3g", padding=3)
    ax.set(xlabel=label, xscale="log" if log else "linear")
    ax.margins(x=0.12)
    ax.invert_yaxis()
    plt.savefig(RESULTS / f"{name}.png", dpi=90, bbox_inches="tight")
