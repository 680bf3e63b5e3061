"""Speed of making the images of a collection, compared with other libraries and a lower bound.

python benchmarks/images.py [--clips 1000]
"""

import argparse
import json
import os
import tempfile
import zlib
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # each way uses one core

import librosa
import librosa.display
import matplotlib.pyplot as plt
import numpy as np
import soundfile
from bench import (
    SETTINGS,
    clips,
    in_a_process,
    keep,
    librosa_and_pillow,
    median,
    plot_bars,
    save,
    take_turns,
)
from scipy.fft import rfft
from scipy.sparse import csr_array

from melgenre.features.images import _make_image
from melgenre.features.melspectrogram import mel_filterbank

DENSE = mel_filterbank(SETTINGS)
FILTERS = csr_array(DENSE)
WINDOW = np.hanning(SETTINGS.n_fft).astype(np.float32)
WHOLE_COLLECTION = """
import json, resource, sys, time
from pathlib import Path
started = time.perf_counter()
import pandas as pd
from melgenre.features.images import extract_melspectrograms
paths, folder = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
tracks = pd.DataFrame({"track_id": [f"clip.{i}" for i in range(len(paths))], "genre": "all",
                       "path": paths})
extract_melspectrograms(tracks, folder, progress=False)
print(json.dumps(time.perf_counter() - started))
"""


def original_project(path, target):
    y, _ = librosa.load(path, mono=True)
    plt.figure(figsize=(10, 10))
    plt.specgram(y, NFFT=2048, Fs=2, Fc=0, noverlap=128, cmap="inferno", sides="default",
                 mode="default", scale="dB")  # fmt: skip
    plt.axis("off")
    plt.savefig(target)
    plt.close()


def specshow(path, target):
    y, rate = librosa.load(path)
    mel = librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=rate), ref=np.max)
    librosa.display.specshow(mel, sr=rate)
    plt.axis("off")
    plt.savefig(target)
    plt.close()


def ours(path, target):
    _make_image(path, target, SETTINGS)


def floor(path, target):
    """The necessary steps by plain calls of libraries: decode, transform, multiply, write."""
    y = soundfile.read(path, dtype="float32")[0][: SETTINGS.samples]
    save(decibels_of(y, lambda some: DENSE @ power_of(rfft(some * WINDOW)).T), target)


def lower_floor(path, target):
    """The same optimised: 16-bit samples, sparse product, run-length PNG."""
    y = soundfile.read(path, dtype="int16")[0][: SETTINGS.samples] * np.float32(2**-15)
    column = WINDOW[:, None]
    made = decibels_of(y, lambda some: FILTERS @ power_of(rfft(some.T * column, axis=0)))
    save(made, target, compress_type=zlib.Z_RLE)


def decibels_of(y, bands_of):
    frames = np.lib.stride_tricks.sliding_window_view(y, SETTINGS.n_fft)[:: SETTINGS.hop_length]
    power = np.empty((SETTINGS.n_mels, len(frames)), np.float32)
    for start in range(0, len(frames), 64):
        power[:, start : start + 64] = bands_of(frames[start : start + 64])
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    return np.maximum(decibels - decibels.max(), -80)


def power_of(spectrum):
    return spectrum.real**2 + spectrum.imag**2


def others():
    """Mel-spectrograms of other libraries, if these are installed: a dict of functions."""
    found = {}
    try:
        import audioflux

        def by_audioflux(path, target):
            y = soundfile.read(path, dtype="float32")[0]
            power, _ = audioflux.mel_spectrogram(
                y, num=SETTINGS.n_mels, radix2_exp=11, samplate=SETTINGS.sample_rate,
                slide_length=SETTINGS.hop_length,
            )  # fmt: skip
            save(audioflux.utils.power_to_db(power), target)

        found["audioFlux, Pillow"] = by_audioflux
    except ImportError as error:
        print(f"audioFlux is skipped: {error}")
    try:
        import torch
        import torchaudio

        torch.set_num_threads(1)
        mel = torchaudio.transforms.MelSpectrogram(
            SETTINGS.sample_rate, SETTINGS.n_fft, hop_length=SETTINGS.hop_length,
            n_mels=SETTINGS.n_mels,
        )  # fmt: skip
        decibels = torchaudio.transforms.AmplitudeToDB(top_db=80)

        def by_torchaudio(path, target):
            made = decibels(mel(torch.from_numpy(soundfile.read(path, dtype="float32")[0]))).numpy()
            save(made - made.max(), target)

        found["torchaudio, Pillow"] = by_torchaudio
    except (ImportError, RuntimeError, OSError) as error:
        print(f"torchaudio is skipped: {error}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1000)
    options = parser.parse_args()
    plt.switch_backend("agg")
    paths, collection = clips(options.clips)
    few, cores = paths[:8], os.cpu_count()

    with tempfile.TemporaryDirectory() as folder:

        def over_few(way):
            return lambda: [way(path, Path(folder, f"{i}.png")) for i, path in enumerate(few)]

        ways = {
            "original project (specgram, savefig)": original_project,
            "specshow, savefig": specshow,
            **others(),
            "librosa, Pillow": librosa_and_pillow,
            "melgenre, one process": ours,
            "floor": floor,
            "floor with optimisations": lower_floor,
        }  # fmt: skip
        seconds = take_turns({name: over_few(way) for name, way in ways.items()}, rounds=5)
        per_clip = {name: median(turns) / len(few) for name, turns in seconds.items()}
        listed = Path(folder, "paths.json")
        listed.write_text(json.dumps([str(Path(p).resolve()) for p in paths]))
        whole = median(
            [in_a_process(WHOLE_COLLECTION, listed, Path(folder, str(turn))) for turn in range(3)]
        )
    rows = [
        {
            "way": name,
            "ms per clip, one core": round(1000 * one, 2),
            "times the floor": round(one / per_clip["floor"], 2),
        }
        for name, one in per_clip.items()
    ]
    # For the other ways, perfect scaling to all cores is assumed, and no start-up time.
    first, bare, lower = (
        per_clip[name] * len(paths) / cores
        for name in ("original project (specgram, savefig)", "floor", "floor with optimisations")
    )
    keep("images", rows, collection=collection, whole={
        "clips": len(paths), "cores": cores,
        "seconds, with the start of the workers": round(whole, 2),
        "times as fast as the original project's loop": round(first / whole, 1),
        "times the floor": round(whole / bare, 2),
        "times the floor with optimisations": round(whole / lower, 2),
    })  # fmt: skip
    print(f"{len(paths)} clips: {whole:.1f} s, {first / whole:.0f} times as fast as the "
          f"original project's loop, {whole / bare:.2f} of the floor")  # fmt: skip
    plot_bars("images", rows, "ms per clip, one core", "ms per clip, on one core", log=True)


if __name__ == "__main__":
    main()
