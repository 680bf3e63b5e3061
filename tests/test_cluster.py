"""The same calls on a Dask cluster of several processes, one of which is killed."""

import os
import signal
import threading
import time

import joblib
import pandas as pd
import pytest

from melgenre.data.collection import find_tracks
from melgenre.features.descriptors import compute_descriptors
from melgenre.features.images import extract_melspectrograms
from melgenre.inference import classifier as classifier_module
from melgenre.inference.batch import classify_folder
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.embeddings import embed_folder
from melgenre.parallel import ClusterError, cluster, parallel_map

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

WORKERS = 2


@pytest.fixture(scope="module")
def scheduler():
    """A scheduler with worker processes that are started again when they end."""
    with (
        distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as running,
        distributed.Client(running) as client,
    ):
        client.wait_for_workers(WORKERS)
        yield client


@pytest.fixture
def on_cluster(scheduler):
    with scheduler.as_current(), joblib.parallel_config(backend="dask"):
        yield scheduler


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """More songs than two processes can have under way, one of them unreadable."""
    import numpy as np
    import soundfile

    folder = tmp_path_factory.mktemp("songs")
    for number in range(24):
        song = folder / f"genre {number % 3}" / f"{number:02d}.wav"
        song.parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(number).normal(0, 0.1, 22050)
        soundfile.write(song, noise, 22050)
    (folder / "genre 0" / "broken.mp3").write_text("no song" * 99)
    return folder


@pytest.fixture(scope="module")
def classifier():
    return GenreClassifier.load()


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def everything(classifier, songs, out):
    """All that goes to a cluster; returns the files and the descriptors."""
    out.mkdir()
    classify_folder(classifier, songs, out / "genres.csv", progress=False)
    embed_folder(classifier, songs, out / "embeddings.npz", progress=False)
    tracks = find_tracks(songs)
    extract_melspectrograms(tracks, out / "images", progress=False)
    return files_of(out), compute_descriptors(tracks, progress=False)


def test_files_and_tables_are_the_same_as_without_a_cluster(
    classifier, songs, tmp_path, on_cluster
):
    files, descriptors = everything(classifier, songs, tmp_path / "cluster")
    with joblib.parallel_config(backend="threading"):
        expected, table = everything(classifier, songs, tmp_path / "here")
    assert files == expected
    # The last digits of descriptors depend on the number of threads.
    pd.testing.assert_frame_equal(descriptors, table, atol=1e-4)


def loaded_models():
    return classifier_module._load_once.cache_info().misses


def test_each_worker_loads_the_model_once(classifier, songs, on_cluster):
    classify_folder(classifier, songs, progress=False)
    embed_folder(classifier, songs, progress=False)
    assert max(on_cluster.run(loaded_models).values()) == 1


def test_the_share_of_a_killed_worker_is_done_again(classifier, songs, tmp_path, on_cluster):
    expected = classify_folder(classifier, songs, tmp_path / "whole.csv", progress=False)
    victim = next(iter(on_cluster.run(os.getpid).values()))
    file = tmp_path / "genres.csv"

    def kill():
        while not file.exists() or file.read_bytes().count(b"\n") < 5:
            time.sleep(0.01)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    found = classify_folder(classifier, songs, file, progress=False)
    killer.join(timeout=60)
    assert not killer.is_alive()
    assert file.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert found.equals(expected)


def end_the_worker(number):
    if number == 3:
        os._exit(1)
    return number


def test_a_call_that_ends_each_of_its_workers_is_an_error(on_cluster):
    with pytest.raises(ClusterError, match="gave up a call .KilledWorker.*it resumes"):
        list(parallel_map(end_the_worker, [(n,) for n in range(9)], total=9, desc="", unit=""))


def test_few_calls_are_under_way_at_a_time(on_cluster):
    drawn = []
    calls = ((drawn.append(number) or number,) for number in range(1000))
    results = parallel_map(wait, calls, total=1000, desc="", unit="", progress=False)
    next(results)
    assert len(drawn) <= 8 * WORKERS
    results.close()


def wait(number):
    time.sleep(0.2)
    return number


def test_an_address_is_enough(scheduler):
    with cluster(scheduler.scheduler.address):
        found = list(parallel_map(pid, [()] * 20, total=20, desc="", unit="", progress=False))
    assert os.getpid() not in {process for _, process in found}


def pid():
    return os.getpid()


def test_without_a_scheduler_there_is_a_sentence(monkeypatch):
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ClusterError, match="No Dask scheduler answers at tcp://127.0.0.1:9"),
        cluster("tcp://127.0.0.1:9"),
    ):
        pass
