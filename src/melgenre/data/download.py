"""A download or an archive -> a folder: resumable, checked, never half there."""

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
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath

import requests
from tqdm.auto import tqdm

from ..errors import MelgenreError
from ..files import (
    MARK,
    atomic_folder,
    atomic_write,
    locked,
    printable,
    read_json,
    restore,
    sweep,
)
from .audio import AUDIO_SUFFIXES

# What is unpacked: sound, images and tables. Anything else in an archive stays in it.
UNPACKED_SUFFIXES = AUDIO_SUFFIXES | {".png", ".csv", ".json"}
# GTZAN unpacks to 1.3 GB; an archive that wants a hundred times that is no music collection.
LARGEST_UNPACKED_BYTES = 100 * 2**30
MOST_MEMBERS = 1_000_000  # of an archive, also of those that stay in it
LARGEST_READ = 64 * 2**20  # at once from a tar; the header of a long name is far smaller
LARGEST_DICTIONARY = 2**28  # of LZMA, which takes so much memory; `xz -9` asks for a quarter
CHUNK = 2**20
RECORD = ".archive.json"
"""Within an unpacked folder: size and time of the archive that it was unpacked from."""


class DownloadError(MelgenreError, OSError):
    """A download or archive that failed; the message says what to do by hand."""


def download(url, target, *, progress=True):
    """Fetch a file, going on where an earlier try stopped.

    The bytes gather in `<target>.part`, which gets its final name only when all of them are there.
    When the file on the server has changed in between, the download starts anew.

    Parameters
    ----------
    url : str
    target : str or Path
        Final name of the file; nothing happens when it is there already.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    DownloadError
        If the server cannot be reached, refuses, or breaks off.
    """
    target = Path(target)
    if target.exists():
        return target
    part, tag = target.with_name(target.name + ".part"), target.with_name(target.name + ".etag")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):  # another process may be fetching it
            if not target.exists():
                _fetch(url, part, tag, progress)
                os.replace(part, target)
                tag.unlink(missing_ok=True)
    except Exception as error:  # a server may answer anything
        raise DownloadError(
            f"Could not download {url} ({_reason(error)}): try again, it goes on where it stopped, "
            f"or download it with a browser and save it as {target.as_posix()}."
        ) from error
    return target


def _fetch(url, part, tag, progress):
    """Bring `part` to the full length of what `url` names."""
    start = part.stat().st_size if part.exists() and tag.exists() else 0
    # If-Range: the rest only if the file is still the one that `part` began with.
    headers = {"Range": f"bytes={start}-", "If-Range": tag.read_text()} if start else {}
    headers["Accept-Encoding"] = "identity"
    with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
        if answer.status_code == 416 and start == _length_in_range(answer):
            return  # stopped between the last byte and the final name
        if answer.status_code == 416:  # the file has become shorter: anew
            part.unlink()
            return _fetch(url, part, tag, progress)
        answer.raise_for_status()
        if answer.status_code != 206:
            start = 0
            # Before the tag changes: a run killed in between must not go on with an earlier file.
            part.unlink(missing_ok=True)
            _remember_version(answer, tag)
        rest = answer.headers.get("Content-Length")
        total = start + int(rest) if rest else None
        bar = tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc="download",
            disable=not progress,
        )  # fmt: skip
        with bar, part.open("ab" if start else "wb") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size != total:
        raise OSError(f"{part.stat().st_size:,} of {total:,} bytes came")


def _length_in_range(answer):
    """Full length of the file, as a server tells it that has nothing more to send."""
    length = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(length) if length.isdigit() else None


def _remember_version(answer, tag):
    """Keep the server's name for this version of the file; without one nothing is resumed."""
    version = answer.headers.get("ETag", answer.headers.get("Last-Modified", ""))
    tag.unlink(missing_ok=True)
    # A weak tag may not be used for ranges.
    if version and not version.startswith("W/"):
        with atomic_write(tag) as unfinished:
            unfinished.write_text(version)


def _reason(error):
    """The cause of a failed download in a few words."""
    if isinstance(error, requests.HTTPError):
        return f"the server answers {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.ConnectionError):
        return "the server cannot be reached, or the connection broke"
    return str(error)


def is_archive(path):
    """Whether `path` is a zip or a tar, by its first bytes."""
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            return True
        with _opened_tar(path):
            return True
    except Exception:  # a file that is none brings about errors of any kind
        return False


def unpack(archive, target):
    """Unpack the sound, images and tables of a zip or tar into a new folder.

    Everything is unpacked beside `target` first and moved there whole, so `target` holds all of
    the archive or does not exist. Where it exists, nothing is done, unless it was unpacked from
    an archive of another size or time. One folder around all the others, as archives often have
    it, is left off.

    Parameters
    ----------
    archive, target : str or Path

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    DownloadError
        If the archive is missing, damaged, encrypted or no archive at all, holds a file twice or
        a path outside the target, or is too large for the disk.
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
            _write_members(archive, part)
            _leave_off_outer_folder(part)
            (part / RECORD).write_text(json.dumps(state))
    except DownloadError:
        raise
    except Exception as error:  # a damaged archive brings about errors of any kind
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(archive) from error
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DownloadError(
            f"{printable(archive.name)} cannot be unpacked ({printable(cause)[:200]}). It may be "
            "damaged, encrypted, or no zip or tar: download it again, or unpack it by hand."
        ) from error
    return target


def _record(folder):
    """What the folder was unpacked from; None where it does not say so."""
    try:
        return read_json(folder / RECORD)
    except (OSError, ValueError):
        return None


def _leave_off_outer_folder(folder):
    """Move what lies in the one folder in `folder` up, unless that holds sound itself."""
    inner = next(iter(folder.iterdir()), folder)
    if len(list(folder.iterdir())) != 1 or not inner.is_dir():
        return
    if any(file.suffix.lower() in AUDIO_SUFFIXES for file in inner.iterdir()):
        return
    inner = inner.rename(folder / f"{MARK}outer")  # it may hold a folder of its own name
    for path in list(inner.iterdir()):
        path.rename(folder / path.name)
    inner.rmdir()


def _write_members(archive, folder):
    """Write the members of a zip or tar below `folder`; refuse those that lead out of it.

    The files keep their times, by which the images made from them are known as up to date when
    the archive is unpacked again.
    """
    members = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    name, unpacked = printable(archive.name), 0
    for number, member in enumerate(tqdm(members(archive), desc="unpack", unit=" files"), start=1):
        if number > MOST_MEMBERS:
            raise DownloadError(
                f"{name} holds over {MOST_MEMBERS:,} files: nothing of it was kept. Unpack it by "
                "hand if that is right."
            )
        if member is None:
            continue
        inside, size, modified, opener = member
        path = PurePosixPath(inside.replace("\\", "/"))
        parts = path.parts
        if path.is_absolute() or not parts or ".." in parts or ":" in parts[0]:
            raise DownloadError(
                f"{name} names a path outside its folder ('{printable(inside)[:200]}'): nothing of "
                "it was unpacked. Get the collection from another place."
            )
        if path.suffix.lower() not in UNPACKED_SUFFIXES or path.name.startswith("._"):
            continue
        destination = folder / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.exists():
            raise DownloadError(
                f"{name} holds two files of one name ('{printable(inside)[:200]}'): nothing of it "
                "was unpacked. Unpack it by hand."
            )
        with opener() as source, destination.open("xb") as file:
            while True:
                if unpacked + size > LARGEST_UNPACKED_BYTES:
                    raise DownloadError(
                        f"{name} unpacks to over {LARGEST_UNPACKED_BYTES / 2**30:.0f} GB: nothing "
                        "of it was kept. Unpack it by hand if that is right."
                    )
                if size > shutil.disk_usage(folder).free:
                    raise _disk_full(archive)
                chunk = source.read(CHUNK)
                if not chunk:
                    break
                file.write(chunk)
                unpacked += len(chunk)
                size = max(size - len(chunk), 0)  # what it still announces
        with suppress(ValueError, OverflowError, OSError):  # a date that there is not
            stamp = modified()
            os.utime(destination, (stamp, stamp))


def _disk_full(archive):
    return DownloadError(
        f"{printable(archive.name)} does not fit on the disk: nothing of it was kept. Free some "
        "space, or let the environment variable MELGENRE_UNPACKED name a folder on another disk."
    )


def _zip_members(archive):
    """Name, size, function for its time and function to open it of each file; else None."""
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            times = partial(_modified, member)
            yield None if member.is_dir() else (
                member.filename, member.file_size, times, partial(_open_in_zip, opened, member),
            )  # fmt: skip


def _open_in_zip(opened, member):
    if member.compress_type == zipfile.ZIP_LZMA:
        opened.fp.seek(member.header_offset + 26)
        opened.fp.seek(sum(struct.unpack("<HH", opened.fp.read(4))), os.SEEK_CUR)
        (size,) = struct.unpack("<5xI", opened.fp.read(9))
        if size > LARGEST_DICTIONARY:
            raise zipfile.BadZipFile(f"it would take {size:,} bytes of memory")
    return opened.open(member)


def _modified(member):
    """When a member of a zip was modified, in seconds since 1970; a zip has local time."""
    return time.mktime((*member.date_time, 0, 0, -1))


def _tar_members(archive):
    """As `_zip_members`; links and devices are neither followed nor made."""
    with _opened_tar(archive) as opened:
        for member in iter(opened.next, None):
            opened.members.clear()  # or a million of them would take a gigabyte
            yield None if not member.isfile() else (
                member.name, member.size, partial(float, member.mtime),
                partial(opened.extractfile, member),
            )  # fmt: skip
        # `tarfile` takes a damaged header for the end, which is a block of zeros or of nothing.
        if opened.fileobj.last.strip(b"\0"):
            raise tarfile.ReadError("the header of a file in it is damaged")
        while opened.fileobj.read(CHUNK):  # the sums at the end of what is compressed
            pass


@contextmanager
def _opened_tar(path):
    """The `TarFile` of a plain or compressed tar."""
    with open(path, "rb") as file:
        head = file.read(6)
    opener = next((opener for first, opener in COMPRESSED.items() if head.startswith(first)), open)
    with opener(path, "rb") as file, tarfile.TarFile(fileobj=_Bounded(file)) as opened:
        yield opened


def _open_xz(path, mode):
    with open(path, mode) as file:
        lzma.LZMADecompressor(memlimit=LARGEST_DICTIONARY).decompress(file.read(CHUNK), 1)
    return lzma.open(path, mode)


COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": _open_xz}
"""First bytes of a compressed tar, and what reads it."""


class _Bounded:
    """A file for `tarfile`, which reads as much at once as a header asks for."""

    def __init__(self, file):
        self.file, self.tell, self.last = file, file.tell, b""

    def read(self, size):
        if size > LARGEST_READ:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self._check(self.file.tell())
        self.last = self.file.read(size)
        return self.last

    def seek(self, place):
        self._check(place)
        return self.file.seek(place)

    def _check(self, place):
        if place > LARGEST_UNPACKED_BYTES:
            raise tarfile.ReadError(f"over {LARGEST_UNPACKED_BYTES / 2**30:.0f} GB")
