"""A folder of songs gets embeddings: resumable, by one model, and compared by cosine."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from melgenre.data.audio import load_audio
from melgenre.errors import MelgenreWarning
from melgenre.inference import embeddings as module
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.embeddings import (
    EmbeddingError,
    Embeddings,
    embed_folder,
    load_embeddings,
    nearest_songs,
)
from melgenre.inference.songs import NoSongsError


@pytest.fixture(scope="module")
def classifier(exported):
    return GenreClassifier.load(exported)


@pytest.fixture
def songs(tmp_path, write_song):
    folder = tmp_path / "my songs"
    write_song(folder / "a.wav", seconds=31)
    write_song(folder / "deep" / "Ж 'quoted'.flac", seconds=3)
    (folder / "broken.mp3").write_text("no song" * 99)
    return folder


class Counting(GenreClassifier):
    """A classifier that notes which songs it embeds."""

    def __init__(self, model):
        self.__dict__ = vars(model)
        self.embedded = []

    def on_one_core(self):
        return self

    def embed(self, recording):
        self.embedded.append(os.path.basename(recording))
        return super().embed(recording)


@pytest.fixture
def counting(exported):
    return Counting(GenreClassifier.load(exported))


def test_each_readable_song_has_the_embedding_of_its_recording(classifier, songs, tmp_path):
    file = tmp_path / "e.npz"
    found = embed_folder(classifier, songs, file, progress=False)
    assert found.songs == ["a.wav", "deep/Ж 'quoted'.flac"]
    for name, vector in zip(found.songs, found.vectors, strict=True):
        np.testing.assert_allclose(vector, classifier.embed(songs / name), atol=1e-4)
    assert list(found.errors) == ["broken.mp3"]
    assert "broken.mp3: not readable" in found.errors["broken.mp3"]
    loaded = load_embeddings(file)
    assert (loaded.songs, loaded.modified) == (found.songs, found.modified)
    assert loaded.model == classifier.fingerprint
    assert loaded.vectors.dtype == np.float32
    np.testing.assert_array_equal(loaded.vectors, found.vectors)
    assert repr(loaded) == "<Embeddings: 2 songs, 512 values each>"
    with np.load(file, allow_pickle=False) as archive:  # what other programs find
        assert set(archive) == {"songs", "vectors", "modified", "model"}


def test_only_new_and_changed_songs_are_computed_again(counting, songs, tmp_path, write_song):
    file = tmp_path / "e.npz"
    first = embed_folder(counting, songs, file, progress=False)
    counting.embedded.clear()
    same = embed_folder(counting, songs, file, progress=False)
    assert counting.embedded == ["broken.mp3"], "it might be readable now"
    np.testing.assert_array_equal(same.vectors, first.vectors)
    write_song(songs / "new.wav", seconds=2)
    write_song(songs / "a.wav", seconds=5)
    (songs / "broken.mp3").unlink()
    (songs / "deep" / "Ж 'quoted'.flac").unlink()
    counting.embedded.clear()
    last = embed_folder(counting, songs, file, progress=False)
    assert sorted(counting.embedded) == ["a.wav", "new.wav"]
    assert load_embeddings(file).songs == last.songs == ["a.wav", "new.wav"]


def test_an_interrupted_run_resumes(counting, songs, tmp_path, write_song, monkeypatch):
    write_song(songs / "z.wav", seconds=2)
    file, embed = tmp_path / "e.npz", counting.embed

    def interrupted(recording):
        end = time.monotonic() + 60
        while recording.name == "z.wav" and time.monotonic() < end:
            if file.exists() and load_embeddings(file).songs:
                raise KeyboardInterrupt
            time.sleep(0.01)
        return embed(recording)

    monkeypatch.setattr(module, "SECONDS_BETWEEN", -1)
    monkeypatch.setattr(counting, "embed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embed_folder(counting, songs, file, progress=False)
    done = set(map(os.path.basename, load_embeddings(file).songs))
    assert done and "z.wav" not in done
    monkeypatch.setattr(counting, "embed", embed)
    counting.embedded.clear()
    assert len(embed_folder(counting, songs, file, progress=False).songs) == 3
    assert set(counting.embedded) == {"a.wav", "broken.mp3", "z.wav", "Ж 'quoted'.flac"} - done


def test_the_file_is_written_while_the_run_goes_on(counting, songs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN", -1)
    file, embed, before = tmp_path / "e.npz", counting.embed, []

    def embed_and_look(recording):
        before.append(load_embeddings(file).songs if file.exists() else [])
        return embed(recording)

    monkeypatch.setattr(counting, "embed", embed_and_look)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    embed_folder(counting, songs, file, progress=False)
    assert load_embeddings(file).songs == ["a.wav", "deep/Ж 'quoted'.flac"]
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]


def test_a_file_of_another_model_is_started_anew_with_a_warning(counting, songs, tmp_path):
    file = tmp_path / "e.npz"
    embed_folder(counting, songs, file, progress=False)
    counting.embedded.clear()
    counting.fingerprint = "another"
    with pytest.warns(MelgenreWarning, match="e.npz was written with another model"):
        embed_folder(counting, songs, file, progress=False)
    assert len(counting.embedded) == 3
    assert load_embeddings(file).model == "another"


def test_a_list_of_files_keeps_their_names(classifier, songs):
    path = songs / "a.wav"
    found = embed_folder(classifier, [path], progress=False)
    assert found.songs == [str(path)]
    np.testing.assert_allclose(
        found.vectors[0], classifier.embed((load_audio(path), 22050)), atol=1e-4
    )


@pytest.mark.parametrize("content", ["text", "archive", "short", "nan", "array"])
def test_a_file_without_embeddings_is_not_replaced(classifier, songs, tmp_path, content):
    file = tmp_path / "e.npz"
    whole = {"songs": ["a", "b"], "vectors": np.ones((2, 3), np.float32),
             "modified": ["", ""], "model": "x"}  # fmt: skip
    if content == "text":
        file.write_text("no archive")
    elif content == "array":
        with file.open("wb") as opened:
            np.save(opened, np.ones(3))
    else:
        change = {"archive": {"songs": np.array([None])}, "short": {"songs": ["a"]},
                  "nan": {"vectors": np.full((2, 3), np.nan, np.float32)}}[content]  # fmt: skip
        np.savez(file, **{**whole, **change})
    before = file.read_bytes()
    with pytest.raises(EmbeddingError, match="e.npz has no embeddings of songs .*Name another"):
        embed_folder(classifier, songs, file, progress=False)
    assert file.read_bytes() == before


def test_impossible_requests_are_answered_in_a_sentence(classifier, tmp_path, songs):
    with pytest.raises(NoSongsError, match="no sound in this folder"):
        embed_folder(classifier, tmp_path / "none", progress=False)
    with pytest.raises(OSError, match="cannot be written .there is no such folder"):
        embed_folder(classifier, songs, tmp_path / "none" / "e.npz", progress=False)
    with pytest.raises(EmbeddingError, match="There is no file .*melgenre embed FOLDER"):
        load_embeddings(tmp_path / "none.npz")


def test_the_nearest_songs_point_in_the_same_direction():
    vectors = np.array([[1, 0], [2, 0.1], [0, 1], [-1, 0], [0, 0]], np.float32)
    songs = Embeddings(list("abcde"), vectors, [""] * 5, "x")
    assert [name for name, _ in nearest_songs(songs, "a")] == ["b", "c", "e", "d"]
    assert dict(nearest_songs(songs, "a"))["d"] == -1
    ((name, similarity),) = nearest_songs(songs, np.array([0, 7.0]), n=1)
    assert (name, similarity) == ("c", 1.0)
    with pytest.raises(EmbeddingError, match="No embedding of f"):
        nearest_songs(songs, "f")
    with pytest.raises(EmbeddingError, match="Use the same model for both"):
        nearest_songs(songs, np.ones(3))


def test_the_nearest_song_of_the_same_sound_is_itself(classifier, songs, tmp_path):
    found = embed_folder(classifier, songs, progress=False)
    nearest = nearest_songs(found, classifier.embed(songs / "a.wav"))
    assert nearest[0][1] == pytest.approx(1, abs=1e-3)
    assert dict(nearest)["a.wav"] == pytest.approx(1, abs=1e-3)  # others may sound the same


@pytest.mark.slow
def test_the_shell_writes_embeddings_and_exits_as_predict_does(exported, songs, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "melgenre", "embed", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    some = run(songs, "--out", "e.npz", "--model", exported)
    assert some.returncode == 3, some.stderr
    assert some.stdout == "2 of 3 songs have an embedding in e.npz.\n"
    assert "broken.mp3: not readable" in some.stderr
    assert len(load_embeddings(tmp_path / "e.npz").songs) == 2
    (songs / "broken.mp3").unlink()
    assert run(songs, "--out", "e.npz", "--model", exported).returncode == 0
    none = run(tmp_path / "nowhere", "--model", exported)
    assert (none.returncode, none.stdout) == (1, "")
    assert "no sound in this folder" in none.stderr and "Traceback" not in none.stderr
