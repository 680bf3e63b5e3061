"""Operations that are killed at random moments give the same files when they run again.

`make kill` does the same 25 times for each operation.
"""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "fuzz"))
from operations import OPERATIONS  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_killed_operation_runs_again_with_the_same_result(operation, tmp_path):
    # In a process of its own: it forks, and a process with threads must not fork.
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", ROOT / "fuzz" / "kill.py", "--kills", "3", "--only",
         operation, "--record", tmp_path / "record.json"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads((tmp_path / "record.json").read_text())["operations"][operation]
    assert result["findings"] == []
    assert list(tmp_path.iterdir()) == [tmp_path / "record.json"]


def test_the_committed_records_have_no_findings_and_reliability_md_has_their_counts():
    fuzzed, killed = (
        json.loads((ROOT / "fuzz" / name).read_text()) for name in ("record.json", "kills.json")
    )
    assert fuzzed["all"]["inputs"] >= 100_000 and fuzzed["all"]["findings"] == 0
    assert set(killed["operations"]) == set(OPERATIONS)
    for operation in killed["operations"].values():
        assert operation["findings"] == [] and operation["kills"] == 25
    document = (ROOT / "docs" / "reliability.md").read_text()
    assert f"| {fuzzed['all']['inputs']:,} inputs, 0 findings |" in document
    assert f"| {25 * len(OPERATIONS)} kills, 0 findings |" in document


def test_every_test_file_that_reliability_md_names_exists():
    document = (ROOT / "docs" / "reliability.md").read_text()
    for name in set(re.findall(r"`([\w/]*test_\w+\.py)`", document)):
        assert (ROOT / "tests" / name).exists(), name
