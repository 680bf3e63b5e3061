"""Unpack the music in a zip or tar: by zipfile and tarfile, within limits, atomically."""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import lzma
import os
import shutil
import struct
import tarfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tqdm.auto import tqdm

from ..files import MARK, atomic_folder, read_json, restore, sweep
from ..text import printable
from .audio import AUDIO_SUFFIXES
from .download import DownloadError

UNPACKED_SUFFIXES = AUDIO_SUFFIXES | {".png", ".csv", ".json"}
"""What is unpacked: sound, images and tables. Everything else in an archive stays there."""

# GTZAN unpacks to 1.3 GB: an archive of a hundred times that is not a music collection.
LARGEST_UNPACKED_BYTES = 100 * 2**30
MOST_MEMBERS = 1_000_000  # of an archive, including those that are not unpacked
LARGEST_READ = 64 * 2**20  # at once from a tar; the header of a long name is far smaller
LARGEST_DICTIONARY = 2**28  # of LZMA, in bytes of memory; `xz -9` needs a quarter
LATEST_TIME = 2**33  # in seconds since 1970; a tar may state any number
CHUNK = 2**20
RECORD = ".archive.json"
"""In an unpacked folder: size and time of the archive that it was unpacked from."""


def is_archive(path: str | Path) -> bool:
    """Whether `path` is a zip or a tar, by its first bytes."""
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            return True
        with _opened_tar(path):
            return True
    except Exception:  # tarfile and the decompressors raise many types on other files
        return False


def unpack(archive: str | Path, target: str | Path, *, progress: bool = True) -> Path:
    """Unpack the sound, images and tables of a zip or tar into a new folder.

    Everything is unpacked beside `target` first and then renamed, so `target` holds the whole
    archive or does not exist. An existing `target` is kept, unless it was unpacked from an archive
    of another size or time. A single folder around all others, as archives often have it, is
    removed. The files keep their times, so images made from them stay up to date when the archive
    is unpacked again.

    Parameters
    ----------
    archive
        A zip, or a tar that is plain or compressed by gzip, bzip2 or xz.
    target
        The new folder.
    progress
        Show a progress bar.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    DownloadError
        If the archive is missing, damaged, encrypted or of another format, holds two files of one
        name or a path outside the target, or is too large for the disk.
    """
    archive, target = Path(archive), Path(target)
    try:
        state = {"size": archive.stat().st_size, "mtime_ns": archive.stat().st_mtime_ns}
        restore(target)
        if target.exists() and _record(target) in (None, state):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        with atomic_folder(target) as part:
            extract = _extract_zip if zipfile.is_zipfile(archive) else _extract_tar
            with tqdm(desc="unpack", unit=" files", disable=not progress) as bar:
                extract(archive, part, bar)
            _remove_outer_folder(part)
            (part / RECORD).write_text(json.dumps(state))
    except DownloadError:
        raise
    except Exception as error:  # zipfile, tarfile and the decompressors raise many types
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(archive) from error
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DownloadError(
            f"{printable(archive.name)} cannot be unpacked ({printable(cause)[:200]}). It may be "
            "damaged, encrypted, or not a zip or tar: download it again, or unpack it by hand."
        ) from error
    return target


def _record(folder: Path) -> dict | None:
    """Size and time of the archive that the folder was unpacked from; None if unknown."""
    try:
        return read_json(folder / RECORD)
    except (OSError, ValueError):
        return None


def _remove_outer_folder(folder: Path) -> None:
    """Move the content of a single folder in `folder` up, unless that holds sound itself."""
    inner = next(iter(folder.iterdir()), folder)
    if len(list(folder.iterdir())) != 1 or not inner.is_dir():
        return
    if any(file.suffix.lower() in AUDIO_SUFFIXES for file in inner.iterdir()):
        return
    inner = inner.rename(folder / f"{MARK}outer")  # it may hold a folder of its own name
    for path in list(inner.iterdir()):
        path.rename(folder / path.name)
    inner.rmdir()


def _extract_zip(archive: Path, folder: Path, bar: tqdm) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = ((one, one.filename, one.file_size, one.is_dir()) for one in opened.infolist())
        for member, name in _accepted(archive, folder, members):
            _check_dictionary(opened, member)
            member.filename = name
            file = opened.extract(member, folder)  # no more than `file_size` bytes
            with suppress(ValueError, OverflowError, OSError):  # of an invalid date
                modified = time.mktime((*member.date_time, 0, 0, -1))  # a zip has local time
                os.utime(file, (modified, modified))
            bar.update()


def _extract_tar(archive: Path, folder: Path, bar: tqdm) -> None:
    with _opened_tar(archive) as opened:
        for member, name in _accepted(archive, folder, _tar_members(opened)):
            member.name, member.mtime = name, min(max(0, member.mtime), LATEST_TIME)
            opened.extract(member, folder, filter="data")
            bar.update()
        # `tarfile` takes a damaged header for the end, which is a block of zeros or of nothing.
        if opened.fileobj.last.strip(b"\0"):
            raise tarfile.ReadError("the header of a file in it is damaged")
        while opened.fileobj.read(CHUNK):  # to the checksum at the end of a compressed file
            pass


def _tar_members(opened: tarfile.TarFile) -> Iterator[tuple]:
    for member in iter(opened.next, None):
        opened.members.clear()  # a million of them would take a gigabyte
        yield member, member.name, member.size, not member.isfile()  # folder, link or device


def _accepted(archive: Path, folder: Path, members: Iterable[tuple]) -> Iterator[tuple]:
    """The files that are to be unpacked, with their names.

    `members` are tuples: the member, its name, its size, and whether it is skipped. The next one
    is taken when the one before has been unpacked, so files and free space are up to date.
    """
    name, unpacked = printable(archive.name), 0
    for number, (member, inside, size, skipped) in enumerate(members, start=1):
        unpacked += size
        if number > MOST_MEMBERS or unpacked > LARGEST_UNPACKED_BYTES:
            raise DownloadError(
                f"{name} holds over {MOST_MEMBERS:,} files or over "
                f"{LARGEST_UNPACKED_BYTES / 2**30:.0f} GB: nothing was extracted. Unpack it by "
                "hand if that is right."
            )
        if skipped:
            continue
        path = PurePosixPath(inside.replace("\\", "/"))
        if path.is_absolute() or not path.parts or ".." in path.parts or ":" in path.parts[0]:
            raise DownloadError(
                f"{name} names a path outside its folder ('{printable(inside)[:200]}'): nothing "
                "was extracted. Download the collection from another source."
            )
        if path.suffix.lower() not in UNPACKED_SUFFIXES or path.name.startswith("._"):
            continue
        if (folder / path).exists():
            raise DownloadError(
                f"{name} holds two files of one name ('{printable(inside)[:200]}'): nothing was "
                "extracted. Unpack it by hand."
            )
        if size > shutil.disk_usage(folder).free:
            raise _disk_full(archive)
        yield member, path.as_posix()


def _disk_full(archive: Path) -> DownloadError:
    return DownloadError(
        f"{printable(archive.name)} does not fit on the disk: nothing was extracted. Free some "
        "space, or set the environment variable MELGENRE_UNPACKED to a folder on another disk."
    )


def _check_dictionary(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Refuse a member of a zip whose LZMA dictionary would take gigabytes of memory."""
    if member.compress_type == zipfile.ZIP_LZMA:
        opened.fp.seek(member.header_offset + 26)
        opened.fp.seek(sum(struct.unpack("<HH", opened.fp.read(4))), os.SEEK_CUR)
        (size,) = struct.unpack("<5xI", opened.fp.read(9))
        if size > LARGEST_DICTIONARY:
            raise zipfile.BadZipFile(f"it would take {size:,} bytes of memory")


@contextmanager
def _opened_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """The `TarFile` of a plain or compressed tar."""
    with open(path, "rb") as file:
        head = file.read(6)
    opener = next((opener for first, opener in COMPRESSED.items() if head.startswith(first)), open)
    with opener(path, "rb") as file, tarfile.TarFile(fileobj=_Bounded(file)) as opened:
        yield opened


def _open_xz(path: Path, mode: str) -> lzma.LZMAFile:
    with open(path, mode) as file:
        lzma.LZMADecompressor(memlimit=LARGEST_DICTIONARY).decompress(file.read(CHUNK), 1)
    return lzma.open(path, mode)


COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": _open_xz}
"""First bytes of a compressed tar, and what opens it."""


class _Bounded:
    """A file for `tarfile`, which would read as many bytes at once as a header states."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.tell, self.last = file, file.tell, b""

    def read(self, size: int) -> bytes:
        if size > LARGEST_READ:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.last = self.file.read(size)
        return self.last

    def seek(self, place: int) -> int:
        if place > LARGEST_UNPACKED_BYTES:
            raise tarfile.ReadError(f"over {LARGEST_UNPACKED_BYTES / 2**30:.0f} GB")
        return self.file.seek(place)
