"""Work on all cores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from melgenre.parallel import MIN_PARALLEL, parallel_map

DESCRIBE_IN_A_FRESH_ENVIRONMENT = """
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


def test_results_come_in_order_and_from_this_folder(tmp_path, monkeypatch):
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        monkeypatch.chdir(folder)  # the workers of the first round are used again in the second
        calls = [(f"{i}.wav",) for i in range(3 * MIN_PARALLEL)]
        made = parallel_map(os.path.abspath, calls, desc="names", unit=" names", progress=False)
        made = list(made)
        assert [Path(name).resolve() for name in made] == [folder.resolve() / c for (c,) in calls]


def test_what_a_call_raises_is_raised(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(
            parallel_map(os.listdir, [(tmp_path / "none",)] * (MIN_PARALLEL + 1), desc="", unit="")
        )


def test_workers_compile_nothing_side_by_side(tmp_path, write_song):
    """Processes that fill numba's cache at once can leave it so that every later one crashes."""
    songs = [str(write_song(tmp_path / f"{i}.wav")) for i in range(MIN_PARALLEL + 2)]
    cache = tmp_path / "numba"
    run = subprocess.run(
        [sys.executable, "-c", DESCRIBE_IN_A_FRESH_ENVIRONMENT, *songs],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "compiled before, 0 by workers" in run.stdout
    assert not run.stdout.startswith("0 ")
