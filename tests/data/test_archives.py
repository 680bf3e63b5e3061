import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib

import pytest

from melgenre.data import archives as module
from melgenre.data.archives import is_archive, unpack
from melgenre.data.download import DownloadError


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_only_music_images_and_tables_are_unpacked(tmp_path, make):
    members = {
        "genres/jazz/jazz.00000.wav": b"la",
        "genres/jazz/._jazz.00000.wav": b"a file system's note",
        "genres/bextract_single.mf": b"a list",
        "run.sh": b"echo",
    }
    folder = unpack(make(tmp_path / "archive", members), tmp_path / "music")
    files = [f.relative_to(folder).as_posix() for f in folder.rglob("*.wav") if f.is_file()]
    assert files == ["jazz/jazz.00000.wav"]
    assert sorted(path.name for path in folder.iterdir()) == [".archive.json", "jazz"]
    assert (folder / files[0]).read_bytes() == b"la"


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_files_keep_their_times(tmp_path, make):
    archive = make(tmp_path / "archive", {"jazz/a.wav": b"la"})
    times = set()
    for target in ("once", "again"):
        file = unpack(archive, tmp_path / target) / "jazz" / "a.wav"
        times.add(file.stat().st_mtime)
    assert len(times) == 1
    assert times.pop() <= archive.stat().st_mtime


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    "name", ["../out.wav", "/out.wav", "a/../../out.wav", "c:/out.wav", "a\\..\\..\\out.wav"]
)
def test_no_path_leads_out_of_the_target(tmp_path, make, name):
    target = tmp_path / "below" / "music"
    archive = make(tmp_path / "archive", {"jazz/a.wav": b"la", name: b"out"})
    with pytest.raises(DownloadError, match="outside its folder"):
        unpack(archive, target)
    assert not target.exists()
    assert list(target.parent.iterdir()) == []
    assert not list(tmp_path.rglob("out.wav"))


def test_links_in_a_tar_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "archive", "w") as archive:
        link = tarfile.TarInfo("jazz/link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    folder = unpack(tmp_path / "archive", tmp_path / "music")
    assert [path.name for path in folder.iterdir()] == [".archive.json"]


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_damaged_archive_leaves_nothing_behind(tmp_path, make):
    archive = make(tmp_path / "archive", {f"jazz/{i}.wav": bytes(9999) for i in range(20)})
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DownloadError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "music")
    assert [file.name for file in tmp_path.iterdir()] == ["archive"]


def refused(archive, tmp_path, match):
    """Unpacking ends in a `DownloadError`, leaves nothing behind, and writes nothing outside."""
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    (tmp_path / "data").mkdir()
    with pytest.raises(DownloadError, match=match):
        unpack(archive, tmp_path / "data" / "music")
    assert names(tmp_path / "data") == []
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {path: time for path, time in after.items() if path in before} == before


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    "wrong, match",
    [
        ({"jazz/" + "x" * 300 + ".wav": b"la"}, "cannot be unpacked .*[Nn]ame too long"),
        ({"jazz.wav": b"la", "jazz.wav/b.wav": b"la"}, "cannot be unpacked"),
        ({"jazz/a.wav": b"la", "jazz//a.wav": b"la"}, "two files of one name"),
    ],
)
def test_names_that_no_folder_can_hold_are_refused(tmp_path, make, wrong, match):
    refused(make(tmp_path / "archive", wrong), tmp_path, match)


@pytest.mark.parametrize("make, name", [(make_tar, ""), (make_tar, "."), (make_zip, ".")])
def test_a_file_without_a_name_is_refused(tmp_path, make, name):
    refused(make(tmp_path / "archive", {name: b"la"}), tmp_path, "outside its folder")


def test_a_name_that_is_not_utf_8_is_kept(tmp_path):
    name = os.fsdecode(b"jazz/caf\xe9.wav")
    folder = unpack(make_tar(tmp_path / "archive", {name: b"la"}), tmp_path / "music")
    assert (folder / name).read_bytes() == b"la"


def patched_zip(tmp_path, patches, content=b"la" * 999, method=zipfile.ZIP_DEFLATED):
    """A zip of one song in whose headers some fields have other values."""
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w", method) as opened:
        opened.writestr("jazz/a.wav", content)
    whole = bytearray(archive.read_bytes())
    central = whole.index(b"PK\1\2")
    for offset, value in patches.items():  # as in the central directory; the local header lacks 2
        whole[central + offset : central + offset + len(value)] = value
        whole[offset - 2 : offset - 2 + len(value)] = value
    archive.write_bytes(whole)
    return archive


@pytest.mark.parametrize(
    "patches, match",
    [
        ({8: b"\x01\0"}, "encrypted"),
        ({10: b"\x63\0"}, "compression"),
        ({10: b"\x0e\0"}, "cannot be unpacked"),  # deflated bytes, read as LZMA
        ({10: b"\x0c\0"}, "cannot be unpacked"),  # as bzip2
        ({16: b"abcd"}, "CRC"),
        ({24: struct.pack("<I", 5)}, "CRC"),  # unpacks to more than it states
    ],
)
def test_a_zip_that_cannot_be_read_is_refused(tmp_path, patches, match):
    refused(patched_zip(tmp_path, patches), tmp_path, match)


def test_a_zip_that_would_take_gigabytes_of_memory_is_refused(tmp_path):
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as opened:
        opened.writestr("jazz/a.wav", b"la" * 999)
    whole = bytearray(archive.read_bytes())
    start = 30 + len("jazz/a.wav") + 5  # the size of LZMA's dictionary
    assert unpack(archive, tmp_path / "whole").exists()
    whole[start : start + 4] = b"\xff" * 4
    archive.write_bytes(whole)
    refused(archive, tmp_path, "4,294,967,295 bytes of memory")


def test_a_tar_xz_that_would_take_gigabytes_of_memory_is_refused(tmp_path):
    with tarfile.open(tmp_path / "archive", "w:xz") as archive:
        archive.addfile(tarfile.TarInfo("jazz/a.wav"))
    whole = bytearray((tmp_path / "archive").read_bytes())
    size = (whole[12] + 1) * 4  # of the block's header, after the stream's 12 bytes
    whole[16] = 39  # 3 GB
    whole[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(whole[12 : 12 + size - 4]))
    (tmp_path / "archive").write_bytes(whole)
    refused(tmp_path / "archive", tmp_path, "Memory usage limit")


@pytest.mark.parametrize("date", [bytes(4), b"\xff" * 4])
def test_an_invalid_date_in_a_zip_is_ignored(tmp_path, date):
    folder = unpack(patched_zip(tmp_path, {12: date}), tmp_path / "music")
    assert (folder / "jazz" / "a.wav").read_bytes() == b"la" * 999


@pytest.mark.parametrize("time", [1e300, -1e300, "nan"])
def test_an_invalid_time_in_a_tar_is_ignored(tmp_path, time):
    with tarfile.open(tmp_path / "archive", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("jazz/a.wav")
        member.size, member.pax_headers = 2, {"mtime": str(time)}
        archive.addfile(member, io.BytesIO(b"la"))
    folder = unpack(tmp_path / "archive", tmp_path / "music")
    assert (folder / "jazz" / "a.wav").read_bytes() == b"la"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_damaged_tar_of_every_kind_is_refused(tmp_path, mode):
    archive, whole = tmp_path / "archive", os.urandom(5000)
    with tarfile.open(archive, mode) as opened:
        for name in ("jazz/a.wav", "jazz/b.wav"):
            member = tarfile.TarInfo(name)
            member.size = len(whole)
            opened.addfile(member, io.BytesIO(whole))
    content = archive.read_bytes()
    assert len(list(unpack(archive, tmp_path / "whole").rglob("*.wav"))) == 2
    shutil.rmtree(tmp_path / "whole")
    refusals = 0
    start = 512 + 5120 if mode == "w" else 600  # the second header; of a compressed tar anywhere
    for place in range(start, start + 512, 4):
        archive.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        target = tmp_path / f"music {place}"
        try:
            unpack(archive, target)
        except DownloadError:
            refusals += 1
            assert not target.exists()
        else:  # some bits of a header have no meaning
            assert [song.read_bytes() for song in target.rglob("*.wav")] == [whole, whole]
    assert refusals > 120


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_header_that_states_gigabytes_is_refused_unread(tmp_path, mode):
    with tarfile.open(tmp_path / "archive", mode) as archive:
        member = tarfile.TarInfo("pax")
        member.type, member.size = tarfile.XHDTYPE, 3 * 2**30
        archive.addfile(member)
        archive.addfile(tarfile.TarInfo("jazz/a.wav"))
    assert not is_archive(tmp_path / "archive")
    refused(tmp_path / "archive", tmp_path, "a header of 3,221,225,472 bytes")


def test_a_file_that_states_more_bytes_than_any_collection_is_refused_unread(tmp_path):
    with tarfile.open(tmp_path / "archive", "w:gz") as archive:
        member = tarfile.TarInfo("jazz/a.txt")
        member.size = 2**60
        archive.fileobj.write(member.tobuf())  # the header alone
    refused(tmp_path / "archive", tmp_path, "over 100 GB|end of")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_an_archive_that_does_not_fit_on_the_disk_is_refused(tmp_path, make, monkeypatch):
    archive = make(tmp_path / "archive", {"jazz/a.wav": bytes(3_000_000), "jazz/b.wav": b"la"})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2_999_999))
    refused(archive, tmp_path, "does not fit on the disk.*MELGENRE_UNPACKED")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_too_many_files_and_too_many_bytes_are_refused(tmp_path, make, monkeypatch):
    archive = make(tmp_path / "archive", {f"jazz/{i}.wav": bytes(1000) for i in range(9)})
    monkeypatch.setattr(module, "MOST_MEMBERS", 8)
    refused(archive, tmp_path, "over 8 files")
    (tmp_path / "data").rmdir()
    monkeypatch.setattr(module, "MOST_MEMBERS", 9)
    monkeypatch.setattr(module, "LARGEST_UNPACKED_BYTES", 8999)
    refused(archive, tmp_path, "over 0 GB|over 100 GB")


def test_another_archive_under_the_same_name_is_unpacked_anew(tmp_path):
    archive = make_tar(tmp_path / "archive", {"jazz/a.wav": b"la"})
    folder = unpack(archive, tmp_path / "music")
    (folder / "jazz" / "a.wav").write_bytes(b"changed")
    assert (unpack(archive, folder) / "jazz" / "a.wav").read_bytes() == b"changed", "not anew"
    size = archive.stat().st_size
    make_tar(archive, {"jazz/b.wav": b"li"})
    archive.write_bytes(archive.read_bytes().ljust(size, b"\0"))
    unpack(archive, folder)
    assert [path.name for path in folder.rglob("*.wav")] == ["b.wav"]


def test_a_folder_that_was_not_unpacked_is_never_replaced(tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "mine.wav").write_bytes(b"mine")
    unpack(make_tar(tmp_path / "archive", {"jazz/a.wav": b"la"}), tmp_path / "music")
    assert names(tmp_path / "music") == ["mine.wav"]


def test_an_outer_folder_may_hold_one_of_its_own_name(tmp_path):
    members = {"music/music/a.wav": b"la", "music/jazz/b.wav": b"la"}
    folder = unpack(make_zip(tmp_path / "archive", members), tmp_path / "here")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.wav"))
    assert files == ["jazz/b.wav", "music/a.wav"]


UNPACKER = "import sys; from melgenre.data.archives import unpack; unpack(*sys.argv[1:3])"


@pytest.mark.slow
def test_the_files_of_killed_runs_are_deleted(tmp_path):
    content = os.urandom(200_000)
    archive = make_tar(tmp_path / "archive", {f"jazz/{i}.wav": content for i in range(60)})
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", UNPACKER, archive, tmp_path / "data" / "music"],
            stderr=subprocess.DEVNULL,
        )
        while not list(tmp_path.glob("data/.melgenre-*.part/jazz/*")):
            assert process.poll() is None, "unpacked before it could be killed"
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "data" / "music").exists()
    assert len(list(unpack(archive, tmp_path / "data" / "music").rglob("*.wav"))) == 60
    assert names(tmp_path / "data") == ["music"]


def test_the_record_holds_size_and_time(tmp_path):
    archive = make_tar(tmp_path / "archive", {"jazz/a.wav": b"la"})
    record = json.loads((unpack(archive, tmp_path / "music") / ".archive.json").read_text())
    assert record == {"size": archive.stat().st_size, "mtime_ns": archive.stat().st_mtime_ns}


@pytest.mark.parametrize("content", [b"", b"no archive" * 99, b"PK\3\4", b"\x1f\x8b", b"BZh9"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "archive").write_bytes(content)
    assert not is_archive(tmp_path / "archive")
    refused(tmp_path / "archive", tmp_path, "cannot be unpacked")
    assert not is_archive(tmp_path / "nowhere")
    assert not is_archive(tmp_path)


def test_a_million_links_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_MEMBERS", 8)
    with tarfile.open(tmp_path / "archive", "w") as archive:
        for number in range(9):
            link = tarfile.TarInfo(f"jazz/{number}.wav")
            link.type, link.linkname = tarfile.SYMTYPE, "a.wav"
            archive.addfile(link)
    refused(tmp_path / "archive", tmp_path, "over 8 files")


def test_a_zip_made_on_windows_gets_its_folders(tmp_path):
    archive = make_zip(tmp_path / "archive", {"all\\jazz\\a.wav": b"la", "all\\rock\\b.wav": b"la"})
    folder = unpack(archive, tmp_path / "music", progress=False)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.wav"))
    assert files == ["jazz/a.wav", "rock/b.wav"]


def test_unpacking_shows_a_bar_only_if_wanted(tmp_path, capfd):
    archive = make_zip(tmp_path / "archive", {"jazz/a.wav": b"la"})
    unpack(archive, tmp_path / "quiet", progress=False)
    assert capfd.readouterr() == ("", "")
    unpack(archive, tmp_path / "music")
    assert "unpack" in capfd.readouterr().err
