import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, strategies as st

from melgenre.files import atomic_folder, atomic_write, locked, restore, sweep, temporary_folder
from melgenre.text import printable, spreadsheet_plain, spreadsheet_safe


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_completely_or_not_at_all(tmp_path):
    file = tmp_path / ("n" * 251 + ".txt")  # the longest possible name
    with atomic_write(file) as part:
        part.write_text("first")
    with pytest.raises(RuntimeError), atomic_write(file) as part:
        part.write_text("half")
        raise RuntimeError
    assert file.read_text() == "first"
    assert names(tmp_path) == [file.name]
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask


def test_a_folder_is_replaced_completely_or_not_at_all(tmp_path):
    folder = tmp_path / "model"
    for content in ("first", "second"):
        with atomic_folder(folder) as part:
            (part / "a").write_text(content)
        assert (folder / "a").read_text() == content
    with pytest.raises(RuntimeError), atomic_folder(folder) as part:
        (part / "a").write_text("half")
        raise RuntimeError
    assert (folder / "a").read_text() == "second"
    assert names(tmp_path) == ["model"]


def test_a_folder_whose_replacement_was_killed_is_restored(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    with atomic_folder(folder) as part:
        (part / "a").write_text("first")
    replace, calls = os.replace, []

    def killed(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder) as part:
        (part / "a").write_text("second")
    monkeypatch.undo()
    assert not folder.exists()
    restore(folder)
    assert (folder / "a").read_text() == "first"
    assert names(tmp_path) == ["model"]


WRITER = """
import sys, time
from melgenre.files import atomic_folder, atomic_write
with atomic_write(sys.argv[1] + "/file") as a, atomic_folder(sys.argv[1] + "/folder") as b:
    (b / "inner").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_temporary_files_of_killed_processes_are_deleted_and_those_of_running_ones_kept(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    process.stdout.readline()
    assert len(names(tmp_path)) == 2
    sweep(tmp_path)
    assert len(names(tmp_path)) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_a_temporary_folder_is_private_and_that_of_a_killed_process_is_deleted(tmp_path):
    for name in (".melgenre-0123456789ab.part", "deeper/.melgenre-0123456789ab.part", "other"):
        (tmp_path / name).mkdir(parents=True)
    with temporary_folder(tmp_path) as first, temporary_folder(tmp_path) as second:
        assert stat.S_IMODE(first.stat().st_mode) == 0o700
        (first / "a").write_text("a")
        assert names(tmp_path) == sorted(["deeper", "other", first.name, second.name])
    assert names(tmp_path) == ["deeper", "other"]
    assert names(tmp_path / "deeper") != []


@pytest.mark.skipif(not hasattr(os, "chown") or os.getuid(), reason="needs root")
def test_files_of_another_user_are_kept(tmp_path):
    left = tmp_path / ".melgenre-0123456789ab.part"
    os.mkfifo(left)  # opening it would block
    os.chown(left, 12345, 12345)
    with temporary_folder(tmp_path):
        assert left.exists()


def test_simultaneous_changes_are_all_kept(tmp_path):
    file = tmp_path / "numbers"
    file.write_text("")

    def add(number):
        with locked(file):
            before = file.read_text()
            time.sleep(0.01)
            with atomic_write(file) as part:
                part.write_text(f"{before}{number}\n")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, file.read_text().split())) == list(range(10))


def test_control_characters_are_printed_as_text():
    assert printable("a\x1b[31m\nb\u202e.mp3") == r"a\x1b[31m\nb\u202e.mp3"
    assert printable(os.fsdecode(b"caf\xe9")) == r"caf\xe9"
    assert printable("夜の歌 שיר") == "夜の歌 שיר"


@pytest.mark.slow
@given(st.text() | st.from_regex(r"'*[=+\-@]?.*") | st.floats(allow_nan=False))
def test_no_written_cell_begins_as_a_formula_and_each_is_restored(cell):
    written = spreadsheet_safe(cell)
    assert not (isinstance(written, str) and written.startswith(("=", "+", "-", "@", "\t", "\r")))
    assert spreadsheet_plain(written) == cell
