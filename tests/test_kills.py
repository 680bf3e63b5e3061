"""Operations that write files are killed at random moments, and end as undisturbed when run again.

`make kill` does the same 25 times for each.
"""

import json
import re
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


def test_the_committed_records_have_no_findings_and_the_document_names_their_counts():
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


def test_each_test_that_the_document_names_is_there():
    document = (ROOT / "docs" / "reliability.md").read_text()
    for name in set(re.findall(r"`([\w/]*test_\w+\.py)`", document)):
        assert (ROOT / "tests" / name).exists(), name
