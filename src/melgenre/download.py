"""A download or an archive -> a folder: resumable, checked, never half there."""

import os
import shutil
import tarfile
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path, PurePosixPath

import requests
from tqdm.auto import tqdm

from .audio import AUDIO_SUFFIXES

# What is unpacked: sound, pictures and tables. Anything else in an archive stays in it.
UNPACKED_SUFFIXES = AUDIO_SUFFIXES | {".png", ".csv", ".json"}
# GTZAN unpacks to 1.3 GB; an archive that wants a hundred times that is no music collection.
LARGEST_UNPACKED_BYTES = 100 * 2**30
CHUNK = 2**20


class DownloadError(OSError):
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
    target.parent.mkdir(parents=True, exist_ok=True)
    part, tag = target.with_name(target.name + ".part"), target.with_name(target.name + ".etag")
    try:
        _fetch(url, part, tag, progress)
    except (requests.RequestException, OSError) as error:
        raise DownloadError(
            f"Could not download {url} ({_reason(error)}): try again, it goes on where it stopped, "
            f"or download it with a browser and save it as {target.as_posix()}."
        ) from error
    os.replace(part, target)
    tag.unlink(missing_ok=True)
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
        answer.raise_for_status()
        if answer.status_code != 206:
            start = 0
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
        tag.write_text(version)


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
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def unpack(archive, target):
    """Unpack the sound, pictures and tables of a zip or tar into a new folder.

    Everything is unpacked beside `target` first and moved there whole, so `target` either holds
    all of the archive or does not exist; where it exists, nothing is done. One folder around all
    the others, as archives often have it, is left off.

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
        If the archive is damaged, no archive at all, or names a path outside the target.
    """
    archive, target = Path(archive), Path(target)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
    try:
        try:
            if zipfile.is_zipfile(archive):
                _unpack_zip(archive, scratch)
            else:
                _unpack_tar(archive, scratch)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, OverflowError) as error:
            if isinstance(error, DownloadError):
                raise
            raise DownloadError(
                f"{archive.name} cannot be unpacked ({error}). It is damaged or no zip or tar: "
                "delete it and download it again."
            ) from error
        whole = _without_outer_folder(scratch)
        whole.chmod(0o755)
        whole.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _without_outer_folder(folder):
    """The one folder in `folder` if it holds no sound itself, else `folder`."""
    inner = next(iter(folder.iterdir()), folder)
    if len(list(folder.iterdir())) != 1 or not inner.is_dir():
        return folder
    sound = any(file.suffix.lower() in AUDIO_SUFFIXES for file in inner.iterdir())
    return folder if sound else inner


def _unpack_zip(archive, folder):
    with zipfile.ZipFile(archive) as opened:
        files = (m for m in opened.infolist() if not m.is_dir())
        members = ((m.filename, m.file_size, _modified(m), partial(opened.open, m)) for m in files)
        _write_members(archive, folder, members)


def _modified(member):
    """When a member of a zip was modified, in seconds since 1970; a zip has local time."""
    return time.mktime((*member.date_time, 0, 0, -1))


def _unpack_tar(archive, folder):
    with tarfile.open(archive) as opened:
        # Links and devices are never followed or made: plain files alone.
        files = (m for m in opened if m.isfile())
        members = ((m.name, m.size, m.mtime, partial(opened.extractfile, m)) for m in files)
        _write_members(archive, folder, members)


def _write_members(archive, folder, members):
    """Write `(name, size, time, open)` members below `folder`; refuse those that lead out of it.

    The files keep their times, so that pictures drawn from them are still newer than they are when
    the archive is unpacked again.
    """
    unpacked = 0
    for name, size, modified, opener in tqdm(members, desc="unpack", unit=" files"):
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise DownloadError(
                f"{archive.name} names a path outside its folder ({name!r}): nothing of it was "
                "unpacked. Get the collection from another place."
            )
        if path.suffix.lower() not in UNPACKED_SUFFIXES or path.name.startswith("._"):
            continue
        unpacked += size
        if unpacked > LARGEST_UNPACKED_BYTES:
            raise DownloadError(
                f"{archive.name} unpacks to over {LARGEST_UNPACKED_BYTES / 2**30:.0f} GB: nothing "
                "of it was kept. Unpack it by hand if that is right."
            )
        destination = folder / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        with opener() as source, destination.open("wb") as file:
            shutil.copyfileobj(source, file, CHUNK)
        os.utime(destination, (modified, modified))
