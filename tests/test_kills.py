"""Operations that write files are killed at random moments, and end as undisturbed when run again.

`make kill` does the same 25 times for each.
"""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "fuzz"))
from operations import OPERATIONS  # noqa: E402


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_killed_operation_runs_again_and_ends_as_undisturbed(operation, tmp_path):
    # In a process of its own: it forks, which a process with threads must not do.
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", ROOT / "fuzz" / "kill.py", "--kills", "3", "--only",
         operation, "--record", tmp_path / "record.json"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads((tmp_path / "record.json").read_text())["operations"][operation]
    assert result["findings"] == []
    assert list(tmp_path.iterdir()) == [tmp_path / "record.json"]


def test_the_committed_record_has_no_findings():
    record = json.loads((ROOT / "fuzz" / "kills.json").read_text())
    assert set(record["operations"]) == set(OPERATIONS)
    for operation in record["operations"].values():
        assert operation["findings"] == []
