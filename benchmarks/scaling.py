"""Songs a second on the workers of a cluster, a worker that is killed, and one whole song.

python benchmarks/scaling.py [--clips 2048]
"""

import argparse
import itertools
import os
import signal
import tempfile
import threading
import time
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import joblib
import soundfile
from bench import clips, keep, median, take_turns

from melgenre.data.audio import SAMPLE_RATE, load_audio
from melgenre.data.mel_settings import MelSettings
from melgenre.features.images import make_png
from melgenre.inference.batch import classify_folder
from melgenre.inference.classifier import GenreClassifier


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=2048)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        keep("scaling", on_workers(Path(folder), options.clips))
        keep("killed_worker", [kill_a_worker(Path(folder), options.clips // 16)])
        keep("whole_song", [one_whole_song(Path(folder))])


def link_clips(folder, count):
    """A folder of so many real clips, in folders of genres."""
    for number, clip in enumerate(clips(count)[0]):
        target = folder / "music" / f"genre {number % 4}" / f"{number:06d}{Path(clip).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(Path(clip).resolve())
    return folder / "music"


WORKER = {"MALLOC_TRIM_THRESHOLD_": "268435456", "MALLOC_MMAP_THRESHOLD_": "33554432"}
"""Settings of glibc for the workers: as Dask sets them, each large array is taken anew from the
system, which doubles the time of a song."""


DASK = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
}
"""By default Dask measures itself fifty times a second."""


@contextmanager
def workers(count):
    """A cluster of so many processes with one thread each."""
    import dask
    from dask.distributed import Client, LocalCluster

    os.environ.update(WORKER)  # before Dask's own values
    with (
        dask.config.set(DASK),
        LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        client.wait_for_workers(count)
        yield client


def on_workers(folder, count, rounds=3):
    """Songs a second on 1, 2 and 4 workers, and in as many processes without a cluster: images,
    and the genres of half of the songs.

    The numbers of workers take turns, and each counts by its best round.
    """
    from melgenre.data.tracks import find_tracks
    from melgenre.features.images import extract_melspectrograms
    from melgenre.inference.songs import find_audio_files

    tracks, classifier = find_tracks(link_clips(folder, count)), GenreClassifier.load()
    songs, best = find_audio_files(folder / "music"), {}
    targets = (folder / f"images {number}" for number in itertools.count())
    ways = {
        "images": (count, lambda some: extract_melspectrograms(
            tracks.head(some), next(targets), progress=False)),
        "genres": (count // 2, lambda some: classify_folder(
            classifier, songs[:some], progress=False)),
    }  # fmt: skip
    for number in (1, 2, 4) * rounds:
        seconds = {}
        with workers(number):
            for what, (size, way) in ways.items():
                way(16 * number)  # each worker imports what it needs
                started = time.perf_counter()
                way(size)
                seconds[what, "workers"] = time.perf_counter() - started
        for what, (size, _) in ways.items():
            seconds[what, "processes"] = in_processes(what, songs[:size], number)
            for how in ("workers", "processes"):
                rates = best.setdefault((what, number), {"workers": 0, "processes": 0})
                rates[how] = max(rates[how], size / seconds[what, how])
    return [
        {"what": what, "workers": number, "songs a second": round(rates["workers"], 1),
         "efficiency": round(rates["workers"] / best[what, 1]["workers"] / number, 2),
         "songs a second without a cluster": round(rates["processes"], 1),
         "efficiency without a cluster":
            round(rates["processes"] / best[what, 1]["processes"] / number, 2)}
        for (what, number), rates in best.items()
    ]  # fmt: skip


def in_processes(what, songs, count):
    """Seconds of processes that have a share of the songs each and nothing else to do."""
    context = get_context("spawn")
    ready = context.Barrier(count + 1)
    processes = [
        context.Process(target=share, args=(what, songs[number::count], ready))
        for number in range(count)
    ]
    for process in processes:
        process.start()
    ready.wait()
    started = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - started


def share(what, songs, ready):
    """Images or genres of some songs, one after the other."""
    classifier, settings = GenreClassifier.load().on_one_core(), MelSettings()
    with tempfile.NamedTemporaryFile() as file:
        ways = {
            "images": lambda song: Path(file.name).write_bytes(make_png(song, settings)[0]),
            "genres": classifier.predict,
        }
        ways[what](songs[0])
        ready.wait()
        for song in songs:
            ways[what](song)


def one_whole_song(folder, seconds=278):
    """Seconds of one core for an MP3 as long as a track of FMA is on average."""
    song = folder / "song.mp3"
    with soundfile.SoundFile(song, "w", SAMPLE_RATE, 1, format="MP3") as file:
        for number, clip in enumerate(clips(-(-seconds // 30))[0]):
            file.write(load_audio(clip, duration=min(30, seconds - 30 * number)))
    classifier, settings = GenreClassifier.load().on_one_core(), MelSettings()
    ways = {"image": lambda: make_png(song, settings), "genre": lambda: classifier.predict(song)}
    taken = take_turns(ways, rounds=10)
    size = song.stat().st_size / 1e6
    return {"seconds of sound": seconds, "MB": round(size, 1)} | {
        f"seconds for the {what}": round(median(each), 3) for what, each in taken.items()
    }


def kill_a_worker(folder, count):
    """Kill a worker in the middle of a run; whether the CSV has the same bytes."""
    classifier = GenreClassifier.load()
    music = link_clips(folder / "some", count)
    file, whole = folder / "killed.csv", folder / "whole.csv"
    with workers(2) as client:
        classify_folder(classifier, music, whole, progress=False)
        victim = next(iter(client.run(os.getpid).values()))

        def kill():
            while not file.exists() or file.read_bytes().count(b"\n") < count // 2:
                time.sleep(0.01)
            os.kill(victim, signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        classify_folder(classifier, music, file, progress=False)
    same = file.read_bytes() == whole.read_bytes()
    return {"what": "a worker killed after half of the songs", "songs": count, "same bytes": same}


if __name__ == "__main__":
    main()
