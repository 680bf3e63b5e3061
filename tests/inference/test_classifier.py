import io
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from melgenre.data.audio import SAMPLE_RATE, AudioError, load_audio
from melgenre.data.collection import find_tracks
from melgenre.features.images import extract_melspectrograms
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.model_folder import ModelError, write_config
from melgenre.training.exported import load_exported


@pytest.fixture(scope="module")
def classifier(exported):
    return GenreClassifier.load(exported, backend="torch")


def test_the_answer_is_every_genre_with_its_probability(classifier, images):
    answer = classifier.predict(images["path"].iloc[0])
    assert set(answer) == set(classifier.genres)
    assert sum(answer.values()) == pytest.approx(1, abs=1e-5)
    assert list(answer.values()) == sorted(answer.values(), reverse=True)


def test_both_forms_of_an_export_give_one_answer(classifier, exported, images):
    same_as_by_fastai(classifier, exported, images.head(8))


def same_as_by_fastai(classifier, exported, tracks):
    learn, _ = load_exported(exported)
    for track in tracks.itertuples():
        answer = classifier.predict(track.path)
        with learn.no_bar():
            genre, _, probabilities = learn.predict(track.image)
        assert genre == next(iter(answer))
        for name, probability in zip(learn.dls.vocab, probabilities.tolist(), strict=True):
            assert answer[name] == pytest.approx(probability, abs=1e-4)


@pytest.mark.parametrize("seconds", [20, 29.93, 30.65])
def test_a_clip_of_any_length_gives_the_answer_of_its_image(
    classifier, exported, tmp_path, images, seconds
):
    """GTZAN's clips are up to 0.7 s longer than an image, and the middle of them is drawn."""
    y = np.concatenate([load_audio(path) for path in images["path"].iloc[[4, 12]]])
    song = tmp_path / "jazz" / "song.wav"
    song.parent.mkdir()
    soundfile.write(song, y[SAMPLE_RATE * 15 :][: int(seconds * SAMPLE_RATE)], SAMPLE_RATE)
    track = extract_melspectrograms(find_tracks(tmp_path), tmp_path / "images", progress=False)
    same_as_by_fastai(classifier, exported, track)


def test_real_clips_give_the_answer_of_their_images(classifier, exported, gtzan, tmp_path):
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
    for path, window in zip(images["path"].iloc[[0, 9, 20]], windows.itertuples(), strict=False):
        alone = classifier.predict(path)
        assert max(alone, key=alone.get) == windows.filter(like="p_").loc[window.Index].idxmax()[2:]
    whole = classifier.predict(song)
    for genre in classifier.genres:
        assert whole[genre] == pytest.approx(windows[f"p_{genre}"].mean(), abs=1e-5)


def test_a_short_recording_is_answered_too(classifier, tmp_path, write_song):
    windows = classifier.timeline(write_song(tmp_path / "short.mp3", seconds=2))
    assert len(windows) == 1


def test_what_is_no_music_is_answered_with_unsure(classifier):
    """The measured limit, on sounds that lie outside of what any collection holds."""
    t = np.arange(31 * SAMPLE_RATE) / SAMPLE_RATE
    for name, y in {
        "silence": np.zeros_like(t),
        "clicks": 0.9 * (np.arange(len(t)) % SAMPLE_RATE < 20),
        "sine": 0.5 * np.sin(2 * np.pi * 440 * t),
    }.items():
        answer = classifier.predict((y, SAMPLE_RATE))
        assert answer.is_ood, name
        assert answer.genre == "unsure"
        assert answer.ood_score > classifier.ood_threshold
        assert sum(answer.values()) == pytest.approx(1, abs=1e-5)
        assert classifier.timeline((y, SAMPLE_RATE))["is_ood"].all()


def test_what_the_limit_was_measured_on_is_hardly_ever_strange(classifier, learner):
    held_out = learner.dls.valid_ds.items["path"]
    assert sum(classifier.predict(path).is_ood for path in held_out) <= len(held_out) / 4


def test_onnx_runtime_is_used_on_a_cpu_where_it_can_be(exported, tmp_path, images):
    """torch, fastai and timm take ten seconds to import; nobody who asks for a genre needs them."""
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


def test_by_onnx_runtime_it_is_the_same(exported, classifier, images):
    by_onnx = GenreClassifier.load(exported, backend="onnx")
    for path in images["path"].head(6):
        one, other = classifier.predict(path), by_onnx.predict(path)
        assert list(one) == pytest.approx(list(other)) or one.genre == other.genre
        assert one.ood_score == pytest.approx(other.ood_score, rel=1e-3)
        for genre in classifier.genres:
            assert one[genre] == pytest.approx(other[genre], abs=1e-4)


ONLY_ONNX = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(name)
REFUSED = {"torch", "torchvision", "fastai", "timm", "pandas", "matplotlib", "PIL", "tqdm",
           "safetensors", "huggingface_hub", "requests", "anywidget", "onnx", "typer"}
sys.meta_path.insert(0, Refuse())
from melgenre.inference.classifier import GenreClassifier
print(GenreClassifier.load("model", backend="onnx").predict(sys.argv[1]))
assert not REFUSED & set(sys.modules)
"""


def test_onnx_runtime_and_librosas_needs_are_enough(exported, classifier, images, tmp_path):
    shutil.copytree(exported, tmp_path / "model")
    for name in ("learner.pkl", "model.safetensors"):
        (tmp_path / "model" / name).unlink()
    song = os.path.abspath(images["path"].iloc[0])
    ran = subprocess.run([sys.executable, "-c", ONLY_ONNX, song], cwd=tmp_path,
                         capture_output=True, text=True)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    answer = eval(ran.stdout)
    for genre, probability in classifier.predict(song).items():
        assert answer[genre] == pytest.approx(probability, abs=1e-4)


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


def test_any_form_of_a_recording_gives_one_answer(classifier, tmp_path, images):
    y = np.concatenate([load_audio(path) for path in images["path"].iloc[[0, 9]]])
    wav = tmp_path / "song.wav"
    soundfile.write(wav, y, SAMPLE_RATE, subtype="FLOAT")
    expected = classifier.predict(wav)
    with wav.open("rb") as file:
        for recording in (str(wav), wav.read_bytes(), io.BytesIO(wav.read_bytes()), file,
                          (y, SAMPLE_RATE), (np.stack([y, y], axis=1), SAMPLE_RATE)):  # fmt: skip
            answer = classifier.predict(recording)
            assert list(answer.values()) == pytest.approx(list(expected.values()), abs=1e-4)


def test_the_hub_is_asked_only_for_names_and_for_what_is_read(monkeypatch, exported, tmp_path):
    import huggingface_hub

    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return exported

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    GenreClassifier.load("hf:somebody/of-music")
    GenreClassifier.load("hf:somebody/of-music@v1", backend="torch")
    assert asked == [
        ("somebody/of-music", None, ["config.json", "model.onnx"]),
        ("somebody/of-music", "v1", ["config.json", "model.safetensors"]),
    ]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: 1 / 0)
    with pytest.raises(ModelError, match="No exported model in"):
        GenreClassifier.load(tmp_path / "none")


def test_a_hub_that_is_not_reached_gets_a_sentence(monkeypatch):
    import huggingface_hub

    def fail(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    sentence = "hf:somebody/of-music cannot be fetched .* (LocalEntryNotFoundError: no network)"
    with pytest.raises(ModelError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        GenreClassifier.load("hf:somebody/of-music")


def test_a_saved_copy_is_the_model_without_its_pickle(classifier, tmp_path, images):
    folder = classifier.save(tmp_path / "copy")
    assert {file.name for file in folder.iterdir()} == {
        "README.md", "config.json", "model.onnx", "model.safetensors",
    }  # fmt: skip
    song = images["path"].iloc[0]
    assert GenreClassifier.load(folder, backend="torch").predict(song) == classifier.predict(song)


def test_the_card_says_what_the_run_says(exported, classifier):
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: melgenre\n")
    for said in ("**50.0 %**, 95 % interval 30.0 to 70.0", "artist-split", "must\nnot be used",
                 "none (from scratch)", *classifier.genres):  # fmt: skip
        assert said in card


def test_what_is_no_recording_gets_a_sentence(classifier, tmp_path):
    (tmp_path / "song.mp3").write_text("no song" * 1000)
    with pytest.raises(AudioError, match="song.mp3: not readable"):
        classifier.predict(tmp_path / "song.mp3")


def test_a_folder_is_enough_elsewhere(exported, images, tmp_path, classifier):
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


def test_a_missing_model_gets_a_sentence(tmp_path):
    with pytest.raises(ModelError, match="No exported model in .*nothing: .*notebook 04"):
        GenreClassifier.load(tmp_path / "nothing")


def test_a_model_of_a_newer_format_gets_a_sentence(exported, tmp_path):
    with pytest.raises(ModelError, match="is of format 99.*Update melgenre"):
        GenreClassifier.load(broken_copy(exported, tmp_path, format_version=99))


@pytest.mark.parametrize(
    "changes", [{"genres": ["one"]}, {"architecture": "resnet50"}, {"mel_settings": {"odd": 1}}]
)
def test_a_config_that_does_not_fit_gets_a_sentence(exported, tmp_path, changes):
    with pytest.raises(ModelError, match="damaged"):
        GenreClassifier.load(broken_copy(exported, tmp_path, **changes), backend="torch")


def test_damaged_files_get_a_sentence(exported, tmp_path):
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


def test_files_of_two_models_do_not_answer_together(exported, tmp_path):
    other = broken_copy(exported, tmp_path, genres=["d", "c", "b", "a"])
    shutil.copy(exported / "config.json", other)
    GenreClassifier.load(other)  # the same network
    shutil.copy(exported / "model.safetensors", other / "model.onnx")
    with pytest.raises(ModelError, match="model.onnx is not the file that was exported with"):
        GenreClassifier.load(other)


def test_a_network_that_gives_no_numbers_is_told(exported, classifier, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "nan")
    weights = load_file(folder / "model.safetensors")
    last = [name for name in weights if name.endswith("weight")][-1]
    weights[last] *= float("nan")
    save_file(weights, folder / "model.safetensors")
    write_config(folder, json.loads((folder / "config.json").read_text()))
    nan = GenreClassifier.load(folder, backend="torch")
    with pytest.raises(ModelError, match="probabilities that are not finite"):
        nan.predict((np.zeros(22050 * 3, np.float32), 22050))


def test_a_model_of_an_earlier_format_still_answers(exported, classifier, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]
    (folder / "config.json").write_text(json.dumps(config | {"format_version": 3}))
    old, sound = GenreClassifier.load(folder), (np.ones(22050 * 3, np.float32), 22050)
    assert dict(old.predict(sound)) == pytest.approx(dict(classifier.predict(sound)), abs=1e-6)
    assert old.fingerprint not in (classifier.fingerprint, "")


class Gone:
    """What another version's pickle asks for, and this version has not."""

    def __reduce__(self):
        return getattr, (str, "no_such_thing")


def test_a_pickle_of_another_version_gets_a_sentence(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "old")
    torch.save(Gone(), folder / "learner.pkl")
    write_config(folder, json.loads((folder / "config.json").read_text()))
    with pytest.raises(ModelError, match=r"learner.pkl in old does not fit.*made by .*'fastai'"):
        load_exported(folder)
    (folder / "learner.pkl").write_bytes(b"")
    with pytest.raises(ModelError, match="learner.pkl is not the file that was exported"):
        load_exported(folder)
