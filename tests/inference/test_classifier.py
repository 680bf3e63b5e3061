"""A model folder -> predictions: the same by both backends, for any recording and any format."""

import ast
import io
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pandas as pd
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from melgenre.data.audio import SAMPLE_RATE, AudioError, load_audio
from melgenre.data.collection import find_tracks
from melgenre.data.table import probabilities
from melgenre.features.images import extract_melspectrograms
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.model_folder import ModelError, write_config
from melgenre.inference.prediction import Analysis
from melgenre.training.exported import load_exported


@pytest.fixture(scope="module")
def classifier(exported):
    return GenreClassifier.load(exported, backend="torch")


def test_a_prediction_has_each_genre_with_its_probability(classifier, images):
    prediction = classifier.predict(images["path"].iloc[0])
    assert set(prediction) == set(classifier.genres)
    assert sum(prediction.values()) == pytest.approx(1, abs=1e-5)
    assert list(prediction.values()) == sorted(prediction.values(), reverse=True)


@pytest.mark.slow
def test_a_recording_is_decoded_once_for_prediction_timeline_and_plot(classifier, write_song,
                                                                      tmp_path):  # fmt: skip
    song = write_song(tmp_path / "song.wav", seconds=75)
    analysis = classifier.analyze(song)
    expected, timeline = classifier.predict(song), classifier.timeline(song)
    song.unlink()
    assert analysis.prediction == expected
    assert analysis.prediction.genre == expected.genre
    pd.testing.assert_frame_equal(analysis.timeline, timeline)
    assert len(analysis.plot().figure.axes[0].images) == 3
    assert analysis.times.tolist() == [[0, 30], [30, 60], [45, 75]]
    assert [image.shape for image in analysis.images] == [(128, 387)] * 3
    assert analysis.probabilities.shape == (3, len(classifier.genres))
    assert analysis.ood_scores.shape == (3,)
    assert repr(analysis) == f"<Analysis: {expected.genre}, 3 windows>"


def test_a_recording_that_is_too_long_is_refused(classifier, write_song, tmp_path):
    song = write_song(tmp_path / "song.wav", seconds=75)
    assert len(classifier.analyze(song, max_minutes=1.25).times) == 3
    with pytest.raises(AudioError, match="longer than 1 min. Cut it"):
        classifier.analyze(song, max_minutes=1)


@pytest.mark.slow
def test_fastai_predicts_the_same(classifier, exported, images):
    same_as_by_fastai(classifier, exported, images.head(8))


def same_as_by_fastai(classifier, exported, tracks):
    learn, _ = load_exported(exported)
    for track in tracks.itertuples():
        prediction = classifier.predict(track.path)
        with learn.no_bar():
            genre, _, expected = learn.predict(track.image)
        assert genre == next(iter(prediction))
        for name, probability in zip(learn.dls.vocab, expected.tolist(), strict=True):
            assert prediction[name] == pytest.approx(probability, abs=1e-4)


@pytest.mark.parametrize("seconds", [20, 29.93, 30.65])
def test_a_clip_of_any_length_gives_the_prediction_of_its_image(
    classifier, exported, tmp_path, images, seconds
):
    """GTZAN's clips are up to 0.7 s longer than an image, which shows their middle."""
    y = np.concatenate([load_audio(path) for path in images["path"].iloc[[4, 12]]])
    song = tmp_path / "jazz" / "song.wav"
    song.parent.mkdir()
    soundfile.write(song, y[SAMPLE_RATE * 15 :][: int(seconds * SAMPLE_RATE)], SAMPLE_RATE)
    track = extract_melspectrograms(find_tracks(tmp_path), tmp_path / "images", progress=False)
    same_as_by_fastai(classifier, exported, track)


@pytest.mark.slow
def test_real_clips_give_the_predictions_of_their_images(classifier, exported, gtzan, tmp_path):
    tracks = find_tracks(gtzan).dropna(subset="path").groupby("genre").head(2)
    tracks = extract_melspectrograms(tracks.assign(image=None), tmp_path, progress=False)
    same_as_by_fastai(classifier, exported, tracks)


def test_a_long_recording_is_cut_into_windows_and_averaged(classifier, images, tmp_path):
    clips = [load_audio(path, duration=30) for path in images["path"].iloc[[0, 9, 20]]]
    song = tmp_path / "long.wav"
    soundfile.write(song, np.concatenate([*clips, clips[0][: 10 * SAMPLE_RATE]]), SAMPLE_RATE)
    windows = classifier.timeline(song)
    assert windows["start"].tolist() == [0, 30, 60, 70]
    assert windows["end"].tolist() == [30, 60, 90, 100]
    # The first windows are those clips, and the whole is the mean of all.
    shares = probabilities(windows)
    for number, path in enumerate(images["path"].iloc[[0, 9, 20]]):
        alone = classifier.predict(path)
        assert dict(shares.loc[number]) == pytest.approx(dict(alone), abs=1e-4)
    whole = classifier.predict(song)
    assert dict(whole) == pytest.approx(dict(shares.mean()), abs=1e-5)


def test_windows_out_of_distribution_count_only_if_they_are_at_least_half(classifier):
    """Applause at the end of a song changes nothing; half a recording of it does."""
    n_genres = len(classifier.genres)
    music, applause = np.eye(n_genres)[0], np.eye(n_genres)[1]

    def aggregated(*windows):
        scores = [np.inf if window is applause else 0 for window in windows]
        times = [(30 * number, 30 * number + 30) for number in range(len(windows))]
        images = [np.zeros((128, 387), np.uint8)] * len(windows)
        analysis = Analysis(classifier, times, images, np.array(windows), np.array(scores))
        return analysis.prediction

    first, second = classifier.genres[:2]
    mostly = aggregated(music, music, applause)
    assert (mostly.genre, mostly[first], mostly[second]) == (first, 1, 0)
    half = aggregated(music, applause)
    assert (half.genre, half[first], half[second]) == ("unsure", 0.5, 0.5)


def test_a_short_recording_is_one_window(classifier, tmp_path, write_song):
    windows = classifier.timeline(write_song(tmp_path / "short.mp3", seconds=2))
    assert len(windows) == 1


@pytest.mark.slow
def test_sounds_that_are_no_music_are_unsure(classifier):
    t = np.arange(31 * SAMPLE_RATE) / SAMPLE_RATE
    for name, y in {
        "silence": np.zeros_like(t),
        "clicks": 0.9 * (np.arange(len(t)) % SAMPLE_RATE < 20),
        "sine": 0.5 * np.sin(2 * np.pi * 440 * t),
    }.items():
        prediction = classifier.predict((y, SAMPLE_RATE))
        assert prediction.is_ood, name
        assert prediction.genre == "unsure"
        assert prediction.ood_score > classifier.ood_threshold
        assert sum(prediction.values()) == pytest.approx(1, abs=1e-5)
        assert classifier.timeline((y, SAMPLE_RATE))["is_ood"].all()


def test_the_threshold_is_the_99th_percentile_of_the_validation_scores(classifier, learner):
    """Computed here with the exported network, from the validation images alone."""
    files = learner.dls.valid_ds.items["image"]
    _, scores = classifier.predict_images([np.asarray(Image.open(file)) for file in files])
    highest, second = sorted(scores)[-1], sorted(scores)[-2]
    place = 0.99 * (len(scores) - 1) - (len(scores) - 2)  # between the two highest
    assert 0 < place < 1
    expected = second + place * (highest - second)
    assert classifier.ood_threshold == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_onnx_runtime_is_used_on_a_cpu_where_it_can_be(exported, tmp_path, images):
    """torch, fastai and timm take ten seconds to import; a prediction needs none of them."""
    program = (
        "import sys; from melgenre.inference.classifier import GenreClassifier\n"
        "GenreClassifier.load(sys.argv[1]).predict(sys.argv[2]); print('torch' in sys.modules)"
    )
    for model, by_torch in ((exported, False), (tmp_path / "without", True)):
        if by_torch:
            shutil.copytree(exported, model, ignore=shutil.ignore_patterns("*.onnx"))
        command = [sys.executable, "-W", "ignore", "-c", program, model, images["path"].iloc[0]]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert output.split() == [str(by_torch)]


@pytest.mark.slow
def test_onnx_runtime_predicts_the_same_as_torch(exported, classifier, images):
    by_onnx = GenreClassifier.load(exported, backend="onnx")
    assert (classifier.backend, by_onnx.backend) == ("torch", "onnx")
    for path in images["path"].iloc[::5]:
        by_torch, other = classifier.predict(path), by_onnx.predict(path)
        assert dict(other) == pytest.approx(dict(by_torch), abs=1e-4)
        assert other.ood_score == pytest.approx(by_torch.ood_score, rel=1e-3)
        assert other.genre == by_torch.genre


@pytest.mark.slow
def test_an_embedding_is_the_mean_over_windows_of_what_enters_the_last_layer(
    exported, classifier, images, tmp_path
):
    by_onnx = GenreClassifier.load(exported, backend="onnx")
    weights = load_file(exported / "model.safetensors")
    last = [name for name in weights if name.endswith("weight")][-1]
    clips = [load_audio(path, duration=30) for path in images["path"].iloc[[0, 9]]]
    medley = np.concatenate(clips), SAMPLE_RATE
    for model in (classifier, by_onnx):
        embeddings = np.stack([model.embed((clip, SAMPLE_RATE)) for clip in clips])
        assert (embeddings.dtype, embeddings.shape) == (np.float32, (2, 512))
        np.testing.assert_allclose(model.embed(medley), embeddings.mean(axis=0), atol=1e-4)
        # The last layer predicts the genres from it.
        bias = weights.get(last.removesuffix("weight") + "bias", torch.zeros(()))
        logits = torch.from_numpy(embeddings) @ weights[last].T + bias
        for p, clip in zip(logits.softmax(dim=1), clips, strict=True):
            prediction = model.predict((clip, SAMPLE_RATE))
            expected = [prediction[genre] for genre in model.genres]
            np.testing.assert_allclose(p, expected, atol=1e-4)
    np.testing.assert_allclose(by_onnx.embed(medley), classifier.embed(medley), atol=1e-3)


ONLY_ONNX = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(name)
REFUSED = {"torch", "torchvision", "fastai", "timm", "pandas", "matplotlib", "PIL", "tqdm",
           "safetensors", "huggingface_hub", "requests", "anywidget", "onnx", "typer", "scipy",
           "librosa", "filelock"}
sys.meta_path.insert(0, Refuse())
from melgenre.inference.classifier import GenreClassifier
print(GenreClassifier.load("model", backend="onnx").predict(sys.argv[1]))
assert not REFUSED & set(sys.modules)
"""


@pytest.mark.slow
def test_a_prediction_needs_onnx_runtime_soundfile_and_soxr(exported, classifier, images, tmp_path):
    shutil.copytree(exported, tmp_path / "model")
    for name in ("learner.pkl", "model.safetensors"):
        (tmp_path / "model" / name).unlink()
    song = os.path.abspath(images["path"].iloc[0])
    ran = subprocess.run([sys.executable, "-c", ONLY_ONNX, song], cwd=tmp_path,
                         capture_output=True, text=True)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    prediction = ast.literal_eval(ran.stdout.splitlines()[0])
    assert prediction == pytest.approx(dict(classifier.predict(song)), abs=1e-4)


MEMORY_OF_AN_HOUR = """
import re, sys
from pathlib import Path
from melgenre.inference.classifier import GenreClassifier
def kilobytes(what):
    return int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
model, clip, hour = sys.argv[1:]
classifier = GenreClassifier.load(model)
classifier.timeline(clip)
idle = kilobytes("VmRSS")
print(len(classifier.timeline(hour)), kilobytes("VmHWM") - idle)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from /proc")
@pytest.mark.slow
def test_an_hour_is_read_in_blocks(exported, images, tmp_path):
    hour = tmp_path / "hour.wav"
    with soundfile.SoundFile(hour, "w", 44100, 2) as file:
        for _ in range(360):
            file.write(np.zeros((441000, 2), np.int16))
    output = subprocess.run(
        [sys.executable, "-c", MEMORY_OF_AN_HOUR, exported, images["path"].iloc[0], hour],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    windows, taken = map(int, output.split()[-2:])
    assert windows == 120
    assert taken < 300_000


def test_any_form_of_a_recording_gives_the_same_prediction(classifier, tmp_path, images):
    y = np.concatenate([load_audio(path) for path in images["path"].iloc[[0, 9]]])
    wav = tmp_path / "song.wav"
    soundfile.write(wav, y, SAMPLE_RATE, subtype="FLOAT")
    expected = classifier.predict(wav)
    with wav.open("rb") as file:
        for recording in (str(wav), wav.read_bytes(), io.BytesIO(wav.read_bytes()), file,
                          (y, SAMPLE_RATE), (np.stack([y, y], axis=1), SAMPLE_RATE)):  # fmt: skip
            prediction = classifier.predict(recording)
            assert dict(prediction) == pytest.approx(dict(expected), abs=1e-4)


def test_only_the_needed_files_of_a_named_repository_are_downloaded(
    monkeypatch, exported, tmp_path
):
    import huggingface_hub

    downloads = []

    def download(name, revision, allow_patterns):
        downloads.append((name, revision, allow_patterns))
        return exported

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    GenreClassifier.load("hf:somebody/of-music")
    GenreClassifier.load("hf:somebody/of-music@v1", backend="torch")
    assert downloads == [
        ("somebody/of-music", None, ["config.json", "model.onnx"]),
        ("somebody/of-music", "v1", ["config.json", "model.safetensors"]),
    ]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: 1 / 0)
    with pytest.raises(ModelError, match="No exported model in"):
        GenreClassifier.load(tmp_path / "none")


def test_a_hub_that_cannot_be_reached_raises_a_model_error(monkeypatch):
    import huggingface_hub

    def fail(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    sentence = "hf:somebody/of-music cannot be fetched .* (LocalEntryNotFoundError: no network)"
    with pytest.raises(ModelError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        GenreClassifier.load("hf:somebody/of-music")


@pytest.mark.slow
def test_a_saved_copy_is_the_model_without_its_pickle(classifier, tmp_path, images):
    folder = classifier.save(tmp_path / "copy")
    assert {file.name for file in folder.iterdir()} == {
        "README.md", "config.json", "model.onnx", "model.safetensors",
    }  # fmt: skip
    song = images["path"].iloc[0]
    assert GenreClassifier.load(folder, backend="torch").predict(song) == classifier.predict(song)


def test_the_model_card_has_the_result_of_the_run(exported, classifier):
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: melgenre\n")
    for text in ("**50.0 %**, 95 % interval 30.0 to 70.0", "artist-split", "It must not be used",
                 "none (from scratch)", *classifier.genres):  # fmt: skip
        assert text in card


def test_a_file_that_is_no_recording_raises_an_audio_error(classifier, tmp_path):
    (tmp_path / "song.mp3").write_text("no song" * 1000)
    with pytest.raises(AudioError, match="song.mp3: not readable"):
        classifier.predict(tmp_path / "song.mp3")


@pytest.mark.slow
def test_a_model_folder_works_in_another_place_without_its_pickle(
    exported, images, tmp_path, classifier
):
    shutil.copytree(exported, tmp_path / "taken along")
    (tmp_path / "taken along" / "learner.pkl").unlink()
    program = (
        "import sys; from melgenre.inference.classifier import GenreClassifier\n"
        "print(GenreClassifier.load('taken along', backend='torch').predict(sys.argv[1]))"
    )
    song = os.path.abspath(images["path"].iloc[0])
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, song],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert output.strip() == str(classifier.predict(song))


def test_loading_unpickles_nothing(exported, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    for backend in ("torch", "onnx"):
        GenreClassifier.load(exported, backend=backend)


def broken_copy(exported, tmp_path, **changes):
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    write_config(folder, config)
    return folder


def test_a_missing_model_raises_a_model_error(tmp_path):
    with pytest.raises(ModelError, match="No exported model in .*nothing: .*notebook 04"):
        GenreClassifier.load(tmp_path / "nothing")


@pytest.mark.slow
def test_a_model_of_a_newer_format_raises_a_model_error(exported, tmp_path):
    with pytest.raises(ModelError, match="is of format 99.*Update melgenre"):
        GenreClassifier.load(broken_copy(exported, tmp_path, format_version=99))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"genres": ["one"]}, {"architecture": "resnet50"}, {"mel_settings": {"odd": 1}}]
)
def test_a_config_that_does_not_fit_its_weights_raises_a_model_error(exported, tmp_path, changes):
    with pytest.raises(ModelError, match="damaged"):
        GenreClassifier.load(broken_copy(exported, tmp_path, **changes), backend="torch")


@pytest.mark.slow
def test_damaged_files_raise_a_model_error(exported, tmp_path):
    folder = broken_copy(exported, tmp_path, genres=["one"])
    with pytest.raises(ModelError, match="damaged: model.onnx has .* and config.json describes"):
        GenreClassifier.load(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="damaged"):
        GenreClassifier.load(folder, backend="torch")
    weights.unlink()
    with pytest.raises(ModelError, match="no model.safetensors"):
        GenreClassifier.load(folder, backend="torch")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="config.json is damaged"):
        GenreClassifier.load(folder, backend="torch")


@pytest.mark.slow
@pytest.mark.parametrize("backend, name", [
    ("onnx", "model.onnx"), ("torch", "model.safetensors"), ("onnx", "config.json"),
    ("torch", "config.json"),
])  # fmt: skip
def test_a_flipped_bit_is_found(exported, tmp_path, backend, name):
    folder = shutil.copytree(exported, tmp_path / "flipped")
    content = bytearray((folder / name).read_bytes())
    for place in np.random.default_rng(0).integers(len(content), size=20):
        damaged = content.copy()
        damaged[place] ^= 1
        (folder / name).write_bytes(damaged)
        with pytest.raises(ModelError, match="is damaged"):
            GenreClassifier.load(folder, backend=backend)


@pytest.mark.slow
def test_files_of_two_models_are_not_mixed(exported, tmp_path):
    other = broken_copy(exported, tmp_path, genres=["d", "c", "b", "a"])
    shutil.copy(exported / "config.json", other)
    GenreClassifier.load(other)  # the same network
    shutil.copy(exported / "model.safetensors", other / "model.onnx")
    with pytest.raises(ModelError, match="model.onnx is not the file that was exported with"):
        GenreClassifier.load(other)


@pytest.mark.slow
def test_a_network_that_returns_nan_raises_a_model_error(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "nan")
    weights = load_file(folder / "model.safetensors")
    last = [name for name in weights if name.endswith("weight")][-1]
    weights[last] *= float("nan")
    save_file(weights, folder / "model.safetensors")
    write_config(folder, json.loads((folder / "config.json").read_text()))
    nan = GenreClassifier.load(folder, backend="torch")
    with pytest.raises(ModelError, match="probabilities that are not finite"):
        nan.predict((np.zeros(22050 * 3, np.float32), 22050))


OLD_PORTS = {"images": "pictures", "ood_score": "strangeness"}
OLD_RECIPES = {"frozen-head": "first-project", "smoke-test": "quick"}


def earlier_format(exported, folder, version, recipe):
    """A copy of a model as format 3, 4 or 5 has it: without embeddings, and up to 4 other names.

    Up to format 3 there are no checksums.
    """
    shutil.copytree(exported, folder)
    model = onnx.load(folder / "model.onnx")
    del model.graph.output[2:]
    old_ports = OLD_PORTS if version < 5 else {}
    for port in (*model.graph.input, *model.graph.output):
        port.name = old_ports.get(port.name, port.name)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [old_ports.get(name, name) for name in names]
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    config = json.loads((folder / "config.json").read_text()) | {"format_version": version}
    config["training"]["recipe"] = recipe
    if version < 5:
        config["calibration"]["strangest"] = config["calibration"].pop("ood_threshold")
        config["training"]["recipe"] = OLD_RECIPES[recipe]
    if version >= 4:
        write_config(folder, config)
    else:
        del config["sha256"]
        (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("version, recipe", [(3, "frozen-head"), (3, "smoke-test"),
                                             (4, "frozen-head"), (4, "smoke-test"),
                                             (5, "smoke-test")])  # fmt: skip
def test_a_model_of_an_earlier_format_predicts_the_same(
    exported, classifier, images, tmp_path, version, recipe
):
    folder = earlier_format(exported, tmp_path / "old", version, recipe)
    silence = np.zeros(SAMPLE_RATE * 3, np.float32), SAMPLE_RATE
    for backend in ("torch", "onnx"):
        old = GenreClassifier.load(folder, backend=backend)
        assert old.ood_threshold == classifier.ood_threshold
        assert old.config["training"]["recipe"] == recipe
        assert old.fingerprint not in (classifier.fingerprint, "")
        for recording in (images["path"].iloc[0], silence):
            expected, prediction = classifier.predict(recording), old.predict(recording)
            assert dict(prediction) == pytest.approx(dict(expected), abs=1e-4)
            assert prediction.genre == expected.genre
    # `old` runs by ONNX Runtime.
    with pytest.raises(ModelError, match="model.onnx of old gives no embeddings.*backend='torch'"):
        old.embed(silence)
    by_torch = GenreClassifier.load(folder, backend="torch")
    np.testing.assert_allclose(by_torch.embed(silence), classifier.embed(silence), atol=1e-4)
    learn, _ = load_exported(folder)
    assert list(learn.dls.vocab) == classifier.genres


class Gone:
    """An object whose pickle refers to a name that does not exist here."""

    def __reduce__(self):
        return getattr, (str, "no_such_thing")


def test_a_pickle_of_another_version_raises_a_model_error(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "old")
    torch.save(Gone(), folder / "learner.pkl")
    write_config(folder, json.loads((folder / "config.json").read_text()))
    with pytest.raises(ModelError, match=r"learner.pkl in old does not fit.*made with .*'fastai'"):
        load_exported(folder)
    (folder / "learner.pkl").write_bytes(b"")
    with pytest.raises(ModelError, match="learner.pkl is not the file that was exported"):
        load_exported(folder)
