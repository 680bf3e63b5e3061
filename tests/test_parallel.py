"""Parallel calls: their results, progress bar, errors and working directory."""

import os
import subprocess
import sys
import threading

import pandas as pd
import pytest

from melgenre.features.descriptors import compute_descriptors
from melgenre.features.images import extract_melspectrograms
from melgenre.parallel import MIN_PARALLEL, parallel_map

COMPUTE_WITH_EMPTY_CACHE = """
import os, sys
from pathlib import Path
import pandas as pd
from melgenre.features.descriptors import warm_up_numba_cache, compute_descriptors

def compiled():
    return {file.name for file in Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.nb?")}

warm_up_numba_cache()
before = compiled()
compute_descriptors(pd.DataFrame({"path": sys.argv[1:]}), progress=False)
print(len(before), "compiled before,", len(compiled() - before), "by workers")
"""


def run(function, calls, **options):
    options = {"desc": "calls", "unit": " calls", "progress": False} | options
    return list(parallel_map(function, calls, total=len(calls), **options))


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("count", [0, 1, MIN_PARALLEL, 3 * MIN_PARALLEL])
def test_each_result_has_the_number_of_its_call(count, threads):
    results = run(pow, [(number, 2) for number in range(count)], threads=threads)
    assert sorted(results) == [(number, number**2) for number in range(count)]


def test_a_long_call_holds_no_result_back():
    others = threading.Event()
    calls = [(others.wait, 30)] + [(others.is_set,)] * 4
    found = []
    results = parallel_map(
        call, calls, total=len(calls), desc="", unit="", progress=False, threads=True
    )
    for result in results:
        found.append(result)
        if len(found) == 4:
            others.set()
    assert found[-1] == (0, True)  # it has not waited for half a minute
    assert sorted(number for number, _ in found) == list(range(5))


def call(function, *arguments):
    return function(*arguments)


def test_the_bar_counts_the_calls(capfd):
    calls = [(number,) for number in range(3)]
    run(abs, calls, desc="numbers")
    assert capfd.readouterr().err == ""
    run(abs, calls, desc="numbers", progress=True)
    assert "numbers: 100%" in capfd.readouterr().err


@pytest.mark.slow
def test_relative_paths_are_relative_to_the_working_directory_of_the_caller(
    tmp_path, write_song, monkeypatch
):
    """The workers of the first round are reused in the second, where the directory has changed."""
    for folder in (tmp_path / "one", tmp_path / "other"):
        names = [f"{number}.wav" for number in range(MIN_PARALLEL + 2)]
        for name in names:
            write_song(folder / name)
        monkeypatch.chdir(folder)
        tracks = pd.DataFrame({"track_id": names, "genre": "jazz", "path": names})
        assert len(compute_descriptors(tracks, progress=False)) == len(names)
        assert len(extract_melspectrograms(tracks, "images", progress=False)) == len(names)
        assert len(list((folder / "images").rglob("*.png"))) == len(names)


def test_an_error_in_a_worker_is_raised(tmp_path):
    with pytest.raises(FileNotFoundError):
        run(os.listdir, [(tmp_path / "none",)] * (MIN_PARALLEL + 1))


@pytest.mark.slow
def test_workers_compile_nothing_in_parallel(tmp_path, write_song):
    """Processes that write to numba's cache at the same time can damage it."""
    songs = [str(write_song(tmp_path / f"{i}.wav")) for i in range(MIN_PARALLEL + 2)]
    cache = tmp_path / "numba"
    run = subprocess.run(
        [sys.executable, "-c", COMPUTE_WITH_EMPTY_CACHE, *songs],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "compiled before, 0 by workers" in run.stdout
    assert not run.stdout.startswith("0 ")
