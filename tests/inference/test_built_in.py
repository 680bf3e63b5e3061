"""The model in the package."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from melgenre.errors import MelgenreWarning
from melgenre.inference import model_folder
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.model_folder import ModelError, built_in_model

RATE = 22050


@pytest.fixture(scope="module")
def classifier():
    with pytest.warns(MelgenreWarning, match="built-in model"):
        return GenreClassifier.load()


def test_the_built_in_model_has_four_public_files_of_less_than_a_megabyte():
    files = {file.name: file.stat().st_size for file in built_in_model().iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "model.onnx", "README.md"}
    assert sum(files.values()) < 1e6


def test_the_built_in_model_is_loaded_by_default_and_named_with_its_accuracy():
    sentence = (
        r"The built-in model: efficientnet_lite0, trained on 639 tracks of gtzan; accuracy "
        r"\d\d\.\d% on 290 others \(fault-filtered-train\+valid\)\."
    )
    with pytest.warns(MelgenreWarning, match=sentence):
        classifier = GenreClassifier.load()
    assert classifier.folder == built_in_model()
    assert len(classifier.genres) == 10 and classifier.caveats == []


def test_both_backends_give_the_same_probabilities(classifier):
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 387), np.uint8)
    by_torch = GenreClassifier.load(built_in_model(), backend="torch")
    for one, two in zip(
        classifier.predict_images(images), by_torch.predict_images(images), strict=True
    ):
        np.testing.assert_allclose(one, two, atol=1e-4)


def speech(folder):
    if not shutil.which("espeak-ng"):
        pytest.skip("needs a speech synthesiser: apt install espeak-ng")
    file = folder / "speech.wav"
    text = "Is this music, or does somebody read a sentence aloud, again and again? " * 7
    subprocess.run(["espeak-ng", "-w", file, text], check=True)
    return file


T = np.arange(30 * RATE) / RATE


@pytest.mark.parametrize("sound", [
    pytest.param(np.zeros_like(T), id="silence"),
    pytest.param(np.random.default_rng(0).normal(0, 0.1, T.size), id="white noise"),
    pytest.param(0.5 * np.sin(2 * np.pi * 440 * T), id="a sine"),
    pytest.param(0.9 * (np.arange(T.size) % (RATE // 2) < 20), id="clicks"),
    pytest.param(None, id="speech"),
])  # fmt: skip
def test_sound_that_is_no_music_is_unsure(classifier, tmp_path, sound):
    recording = speech(tmp_path) if sound is None else (sound, RATE)
    assert classifier.predict(recording).genre == "unsure"


@pytest.mark.parametrize("name", ["config.json", "model.onnx", "model.safetensors"])
def test_a_damaged_file_of_the_built_in_model_is_reported_in_one_sentence(
    tmp_path, monkeypatch, name
):
    folder = shutil.copytree(built_in_model(), tmp_path / "gtzan")
    (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    monkeypatch.setattr(model_folder, "built_in_model", lambda: folder)
    with pytest.raises(ModelError, match=r"built-in model is damaged: install melgenre again \("):
        GenreClassifier.load()


def test_the_shell_uses_the_built_in_model_and_names_it_on_stderr(write_song, tmp_path):
    song = write_song(tmp_path / "song.wav")
    command = [sys.executable, "-m", "melgenre", "predict", song]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("\n") == 1 and "song.wav" in ran.stdout
    assert ran.stderr.startswith("The built-in model: efficientnet_lite0, trained on 639 tracks")
    assert ran.stderr.count("\n") == 1


@pytest.mark.slow
def test_make_model_gives_the_committed_model(gtzan, classifier, tmp_path, monkeypatch):
    images = [Image.open(file) for file in sorted((gtzan / "mels").glob("*/*0.png"))]
    if len(images) < 99:
        pytest.skip("needs the images of all of GTZAN")
    monkeypatch.setenv("MELGENRE_DATA", str(gtzan))
    command = [sys.executable, "scripts/make_model.py", "--out", tmp_path / "again"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    again = GenreClassifier.load(tmp_path / "again")
    assert again.config["calibration"] == classifier.config["calibration"]
    arrays = [np.asarray(image) for image in images]
    for one, two in zip(
        classifier.predict_images(arrays), again.predict_images(arrays), strict=True
    ):
        np.testing.assert_allclose(one, two, atol=1e-4)
