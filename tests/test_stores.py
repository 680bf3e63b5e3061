"""Music, images, CSVs and embeddings in an object store, which goes away for a time."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile
from joblib.externals.loky import get_reusable_executor

from melgenre import paths
from melgenre.data.collection import load_collection
from melgenre.data.mel_settings import check_image
from melgenre.features.images import extract_melspectrograms
from melgenre.inference.batch import classify_folder
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.embeddings import embed_folder, load_embeddings
from melgenre.paths import StoreError, as_path, list_files
from melgenre.shard import Shard

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

FORWARD = """
import socket, sys, threading
def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    finally:
        target.close()
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        near, _ = server.accept()
        try:
            far = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
        except OSError:  # the store has not started yet
            near.close()
            continue
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=copy, args=(one, other), daemon=True).start()
"""
"""The door of the store: killed, it drops all connections and refuses new ones."""


pause = time.sleep


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Store:
    """An S3 server on loopback, behind a door that can be killed and opened again."""

    def __init__(self):
        self.port, self.door_port = free_port(), free_port()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.server = subprocess.Popen(command, **quiet)
        self.open()

    def open(self):
        command = [sys.executable, "-c", FORWARD, str(self.door_port), str(self.port)]
        self.door = subprocess.Popen(command)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.door_port}", timeout=5).close()
                return
            except urllib.error.HTTPError:  # an answer
                return
            except OSError:
                pause(0.1)
        raise TimeoutError("the store does not answer")

    def kill(self):
        self.door.kill()
        self.door.wait()


@pytest.fixture(scope="module")
def store():
    store = Store()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store.door_port}")
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(name, value)
        # Workers of earlier tests do not have these variables.
        get_reusable_executor().shutdown(wait=True)
        yield store
    store.kill()
    store.server.kill()


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    for number in range(8):
        song = folder / f"genre {number % 2}" / "artist" / f"{number}.wav"
        song.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(song, np.random.default_rng(number).normal(0, 0.1, 22050), 22050)
    (folder / "genre 0" / "broken.mp3").write_text("no song" * 99)
    return folder


@pytest.fixture(scope="module")
def bucket(store, songs):
    """The songs in a bucket."""
    files = fsspec.filesystem("s3", use_listings_cache=False)
    files.mkdir("music")
    files.put(f"{songs}/", "music/songs/", recursive=True)
    return "s3://music"


@pytest.fixture(scope="module")
def classifier():
    return GenreClassifier.load()


def test_genres_and_embeddings_are_those_of_local_files(classifier, bucket, songs):
    here = classify_folder(classifier, songs, progress=False)
    there = classify_folder(classifier, f"{bucket}/songs", f"{bucket}/genres.csv", progress=False)
    changes = ["modified"]  # the store has stamps of its own
    assert there.drop(columns=changes).equals(here.drop(columns=changes))
    again = classify_folder(classifier, f"{bucket}/songs", f"{bucket}/genres.csv", progress=False)
    assert again.equals(there)
    file = f"{bucket}/embeddings.npz"
    embed_folder(classifier, f"{bucket}/songs", file, progress=False)
    found, expected = load_embeddings(file), embed_folder(classifier, songs, progress=False)
    assert found.songs == expected.songs
    np.testing.assert_array_equal(found.vectors, expected.vectors)


def test_images_are_those_of_local_files(bucket, songs, tmp_path):
    tracks = load_collection(f"{bucket}/songs")
    assert set(tracks["genre"]) == {"genre 0", "genre 1"}
    made = extract_melspectrograms(tracks, f"{bucket}/images", progress=False)
    here = extract_melspectrograms(load_collection(songs), tmp_path / "images", progress=False)
    assert len(made) == len(here) == 8
    assert len(made.attrs["skipped"]) == 1
    for image, expected in zip(made["image"], here["image"], strict=True):
        check_image(image)
        assert as_path(image).read_bytes() == Path(expected).read_bytes()
    before = {file.path: file.stamp for file in list_files(f"{bucket}/images")}
    extract_melspectrograms(tracks, f"{bucket}/images", progress=False)
    images = {path: stamp for path, stamp in before.items() if path.endswith(".png")}
    after = {file.path: file.stamp for file in list_files(f"{bucket}/images")}
    assert {path: after[path] for path in images} == images
    assert load_collection(f"{bucket}/images")["image"].tolist() == made["image"].tolist()


def test_only_a_song_that_has_changed_is_classified_again(classifier, bucket, songs):
    folder, file = f"{bucket}/changing", f"{bucket}/changing.csv"
    target = as_path(folder) / "a.wav"
    target.write_bytes((songs / "genre 0/artist/0.wav").read_bytes())
    (as_path(folder) / "b.wav").write_bytes((songs / "genre 0/artist/2.wav").read_bytes())
    first = classify_folder(classifier, folder, file, progress=False)
    target.write_bytes((songs / "genre 1/artist/1.wav").read_bytes())
    second = classify_folder(classifier, folder, file, progress=False)
    assert second["modified"][0] != first["modified"][0]
    assert second.loc[1].equals(first.loc[1])


def test_a_model_can_be_in_the_store(classifier, bucket):
    files = fsspec.filesystem("s3", use_listings_cache=False)
    files.put(f"{classifier.folder}/", "music/model/", recursive=True)
    loaded = GenreClassifier.load(f"{bucket}/model")
    assert loaded.fingerprint == classifier.fingerprint


def test_a_run_outlives_a_restart_of_the_store(classifier, bucket, store, songs, monkeypatch):
    """The store is killed before a song is read, and started again two seconds later."""
    expected = classify_folder(classifier, songs, progress=False)
    predict, third = GenreClassifier.predict, iter([False, False, True])
    restart = threading.Timer(2, store.open)

    def predict_and_kill(self, recording):
        if next(third, False):
            store.kill()
            restart.start()
        return predict(self, recording)

    monkeypatch.setattr(GenreClassifier, "predict", predict_and_kill)
    found = classify_folder(
        classifier, f"{bucket}/songs", f"{bucket}/outage.csv", shard=Shard(1, 1), progress=False
    )
    restart.join()
    assert next(third, None) is None  # it was killed
    assert found.drop(columns="modified").equals(expected.drop(columns="modified"))


def test_a_store_that_stays_away_ends_the_run_and_the_next_resumes(
    classifier, bucket, store, songs, monkeypatch
):
    monkeypatch.setattr(paths, "WAIT_SECONDS", 1)
    file = f"{bucket}/away.csv"
    classify_folder(classifier, f"{bucket}/songs", file, shard=Shard(1, 2), progress=False)
    store.kill()
    try:
        with pytest.raises(StoreError, match="cannot be reached.*run this again: it resumes"):
            classify_folder(classifier, f"{bucket}/songs", file, progress=False)
    finally:
        store.open()
    found = classify_folder(classifier, f"{bucket}/songs", file, progress=False)
    assert (found["error"] != "").sum() == 1  # the song that is none, and no other


@pytest.mark.parametrize(
    "url, message",
    [
        ("nothing://bucket/songs", "nothing:// is no protocol of fsspec"),
        ("s3://nobody/songs", "no sound in this folder"),
    ],
)
def test_a_wrong_url_is_a_sentence(classifier, bucket, url, message):
    with pytest.raises(OSError, match=message):
        classify_folder(classifier, url, progress=False)


def test_the_shell_takes_urls(bucket, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "melgenre", "predict", f"{bucket}/songs", "--csv",
         f"{bucket}/shell.csv", "--shard", "1/2", "--quiet"],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ,
    )  # fmt: skip
    assert run.returncode == 3, run.stderr  # one of the files is no song
    assert f"{bucket}/songs/genre 0/artist/" in run.stdout
    assert as_path(f"{bucket}/shell.1-of-2.csv").exists()
