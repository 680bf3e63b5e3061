"""A short run of the fuzzer, always with the same inputs, has no findings."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("av", reason="some recordings need PyAV: pip install av")
sys.path.insert(0, str(ROOT / "fuzz"))
import fuzz  # noqa: E402


@pytest.mark.slow
def test_every_target_accepts_valid_files_and_raises_named_errors_for_damaged_ones(tmp_path):
    record = tmp_path / "record.json"
    command = [sys.executable, ROOT / "fuzz" / "fuzz.py", "--inputs", "390", "--record", record]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(record.read_text())
    assert counts["all"]["inputs"] == 390
    assert counts["all"]["findings"] == 0
    assert counts["all"]["errors"] > 100
    for target, count in counts["targets"].items():
        assert count["accepted"], f"{target} accepts no valid file: {count}"


FAULTY = """
import os
from melgenre.data.audio import AudioError

def faulty(folder, content, choice):
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "content, finding",
    [
        (b"raise", "KeyError"),
        (b"die", "the process died"),
        (b"loop", "s of CPU"),
        (b"memory", "over memory"),
        (b"much", "over memory"),
        (b"outside", "written outside"),
    ],
)
def test_every_kind_of_fault_is_a_finding(tmp_path, monkeypatch, content, finding):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "faulty_target.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path / "code")
    from faulty_target import faulty

    place = tmp_path / "place"
    (place / "beside").mkdir(parents=True)
    (place / "beside" / "kept").write_text("kept")
    worker = fuzz.Worker(place / "scratch", [(faulty, b"valid")])
    assert worker.run(faulty, b"valid", 0) == "accepted"
    assert finding in worker.run(faulty, content, 0)
    worker.stop()
