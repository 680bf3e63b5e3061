"""What several test files share: a small made-up collection, and real GTZAN where it is there."""

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import soundfile
from fastai.torch_core import defaults

from melgenre.collection import find_tracks
from melgenre.evaluation import predict_tracks
from melgenre.export import export_learner
from melgenre.learner import describe_training, fit, genre_learner, picture_dataloaders
from melgenre.melspectrogram import extract_melspectrograms
from melgenre.splits import group_split
from melgenre.synthetic import make_synthetic_collection

ROOT = Path(__file__).resolve().parent.parent

# The suite runs on the CPU, also where there is a GPU; test_devices.py undoes it.
defaults.use_cuda = False

# A machine that is busy must not fail a property.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def gtzan():
    """A folder with real clips of GTZAN; tests that want it are skipped without it."""
    folder = Path(os.environ.get("MELGENRE_DATA", ROOT.parent / "shared" / "gtzan"))
    if not (folder / "tracks.csv").exists():
        pytest.skip("real GTZAN is not here: set MELGENRE_DATA to a folder that has it")
    return folder


@pytest.fixture(scope="session")
def music(tmp_path_factory):
    """A folder of made-up music: ten genres, four clips by two artists each."""
    folder = tmp_path_factory.mktemp("music") / "made-up"
    return make_synthetic_collection(folder, clips_per_genre=4, progress=False)


@pytest.fixture(scope="session")
def pictures(music, tmp_path_factory):
    """The made-up music's table of tracks, with pictures and its artists kept apart."""
    folder = tmp_path_factory.mktemp("pictures")
    tracks = extract_melspectrograms(find_tracks(music), folder, progress=False)
    return group_split(tracks)


@pytest.fixture(scope="session")
def learner(pictures):
    """A small network after one epoch: it knows little, but it runs."""
    few = pictures[pictures["genre"].isin(sorted(pictures["genre"].unique())[:4])]
    learn = genre_learner(picture_dataloaders(few), "resnet18", "quick", pretrained=False)
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    # Predicting clears the recorder, so what it saw of the training is kept here.
    learn.training_losses = [float(epoch[0]) for epoch in learn.recorder.values]
    return learn


@pytest.fixture(scope="session")
def exported(learner, tmp_path_factory):
    """The folder of that network."""
    result = {"protocol": "artists-apart", "accuracy": 0.5, "interval": [0.3, 0.7], "tracks": 8}
    training = describe_training(learner, learner.dls.items)
    predictions = predict_tracks(learner, learner.dls.valid_ds.items.reset_index(drop=True))
    folder = tmp_path_factory.mktemp("models") / "small"
    return export_learner(learner, folder, training, result, predictions)


@pytest.fixture
def write_song():
    """A function that writes some seconds of a chord to a file, in the format of its name."""

    def write(path, seconds=2.0, rate=22050, channels=1, subtype=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        t = np.arange(int(seconds * rate)) / rate
        chord = sum(np.sin(2 * np.pi * f * t) for f in (220, 277, 330)) / 4
        format = {"au": "AU", "oga": "OGG"}.get(path.suffix[1:])
        soundfile.write(path, np.tile(chord, (channels, 1)).T, rate, subtype=subtype, format=format)
        return path

    return write
