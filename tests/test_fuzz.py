"""A short round of the fuzzer, always with the same inputs: nothing may surprise."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("av", reason="some of the sounds need PyAV: pip install av")
sys.path.insert(0, str(ROOT / "fuzz"))
import fuzz  # noqa: E402


def test_every_door_takes_its_whole_files_and_names_what_is_wrong_with_others(tmp_path):
    record = tmp_path / "record.json"
    command = [sys.executable, ROOT / "fuzz" / "fuzz.py", "--inputs", "390", "--record", record]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(record.read_text())
    assert counts["all"]["inputs"] == 390
    assert counts["all"]["findings"] == 0
    assert counts["all"]["errors"] > 100
    for door, count in counts["doors"].items():
        assert count["answers"], f"{door} takes no whole file any more: {count}"


LYING = """
import os
from melgenre.data.audio import AudioError

def lying(folder, content, choice):
    if content == b"raise":
        raise KeyError("raise")
    if content == b"die":
        os.abort()
    while content == b"loop":
        pass
    if content == b"memory":
        raise AudioError("too large") from MemoryError()
    if content == b"much":
        bytearray(3 * 2**30)
    if content == b"outside":
        (folder.parent / "beside" / "new").write_text("new")
"""


@pytest.mark.parametrize(
    "content, found",
    [
        (b"raise", "KeyError"),
        (b"die", "the process died"),
        (b"loop", "s of CPU"),
        (b"memory", "over memory"),
        (b"much", "over memory"),
        (b"outside", "written outside"),
    ],
)
def test_what_must_not_happen_is_found(tmp_path, monkeypatch, content, found):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "lying_door.py").write_text(LYING)
    monkeypatch.syspath_prepend(tmp_path / "code")
    from lying_door import lying

    place = tmp_path / "place"
    (place / "beside").mkdir(parents=True)
    (place / "beside" / "kept").write_text("kept")
    worker = fuzz.Worker(place / "scratch", [(lying, b"whole")])
    assert worker.run(lying, b"whole", 0) == "answer"
    assert found in worker.run(lying, content, 0)
    worker.stop()
