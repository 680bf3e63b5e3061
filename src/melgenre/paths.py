"""Files anywhere: local paths are pathlib's; URLs such as s3://bucket/song.mp3 are fsspec's.

universal_pathlib gives both the same methods. A store that does not answer is tried again for a
minute, since a run of days should outlive its restart.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import MelgenreError, MelgenreWarning, extra_packages
from .text import printable, short

if TYPE_CHECKING:
    from upath import UPath

URL = re.compile(r"[a-z][a-z0-9+.-]+://")  # at least two letters: C: is a drive of Windows
WAIT_SECONDS = 60
"""For a store that does not answer."""

FEW_FOLDERS = 16
"""So many are listed one by one; of more, the folder that holds them all is."""

FINAL = FileNotFoundError, PermissionError, NotADirectoryError, ValueError, TypeError, ImportError
"""Errors of a store that another try would not change."""


class StoreError(MelgenreError, OSError):
    """A store that does not answer, or refuses a file."""


class FoundFile(NamedTuple):
    """A file of a folder.

    Attributes
    ----------
    path : str
        Local, or a URL.
    name : str
        The path below the folder.
    stamp : str
        What differs when the file is changed: time and size, or what the store gives.
    """

    path: str
    name: str
    stamp: str


def is_url(path: object) -> bool:
    """Whether a path is a URL, for fsspec.

    Examples
    --------
    >>> is_url("s3://bucket/song.mp3"), is_url("C:/song.mp3")
    (True, False)
    """
    return not isinstance(path, Path) and URL.match(str(path)) is not None


def as_path(path: str | Path | UPath) -> Path | UPath:
    """A path object of pathlib, or for a URL the one of universal_pathlib.

    Raises
    ------
    StoreError
        If fsspec has no such protocol.
    MissingPackageError
        If a package is missing that the URL needs.
    """
    if not is_url(path):
        return Path(path)
    protocol = str(path).partition("://")[0]
    with extra_packages("cloud", f"{protocol}://"):
        from upath import UPath

        try:
            # Listings are not cached: other processes write to the same folder.
            found = UPath(path, use_listings_cache=False)
            found.fs  # noqa: B018 - imports the package of the protocol
        except ValueError as error:
            raise StoreError(f"{protocol}:// is no protocol of fsspec ({short(error)}).") from error
        except ImportError as error:
            raise StoreError(f"{protocol}:// needs a package: {short(error)}.") from error
    return found


def absolute(path: str | Path | UPath) -> str:
    """A path as text that is the same for processes with other working directories."""
    return str(path) if is_url(path) else os.path.abspath(path)


def patiently(function: Callable, *arguments: Any, subject: object) -> Any:
    """Call a function of a store, and again while the store does not answer.

    Parameters
    ----------
    subject
        The URL that the error names.

    Raises
    ------
    StoreError
        If it fails for `WAIT_SECONDS`.
    """
    end, pause = time.monotonic() + WAIT_SECONDS, 0.5
    while True:
        try:
            return function(*arguments)
        except FINAL:
            raise
        except Exception as error:  # each store has errors of its own
            if time.monotonic() + pause > end:
                raise StoreError(
                    f"{printable(str(subject))} cannot be reached ({short(error)}). Check the "
                    "connection and the credentials, and run this again: it resumes."
                ) from error
        time.sleep(pause)
        pause = min(2 * pause, 5)


@contextmanager
def local_copy(path: str | Path | UPath) -> Iterator[Path]:
    """A local file with the content of `path`: itself, or a temporary copy of a URL's file."""
    if not is_url(path):
        yield Path(path)
        return
    remote = as_path(path)
    with tempfile.TemporaryDirectory(prefix="melgenre-") as folder:
        # With the same name: messages and decoders use its ending.
        copy = Path(folder, f"copy{remote.suffix}")
        patiently(remote.fs.get_file, remote.path, str(copy), subject=path)
        yield copy


def upload(file: Path, path: UPath) -> None:
    """Write a local file to a URL: readers see the earlier content or the new one."""
    patiently(path.fs.put_file, str(file), path.path, subject=path)


def list_files(folder: str | Path | UPath) -> Iterator[FoundFile]:
    """The files below a folder, in a stable order; see `walk` for which are left out.

    One request to a store lists a thousand files.
    """
    if is_url(folder):
        yield from _list_store(as_path(folder))
        return
    start = len(os.path.join(folder, ""))
    for root, names in _walk_disk(folder):
        for name in names:
            path = os.path.join(root, name)
            yield FoundFile(path, path[start:], stamp(path))


def _list_store(folder, maxdepth=None):
    start = len(folder.path.rstrip("/")) + 1
    url = str(folder).rstrip("/") + "/"
    try:
        found = patiently(
            lambda: folder.fs.find(folder.path, maxdepth=maxdepth, detail=True), subject=folder
        )
    except FileNotFoundError:
        return
    for path in sorted(found, key=lambda path: walk_order(path[start:])):
        name = path[start:]
        if name and not any(part.startswith(".") for part in name.split("/")):
            yield FoundFile(url + name, name, _stamp_in_store(found[path]))


def walk_order(name: str) -> tuple:
    """The key that sorts names as `list_files` does: files come before folders.

    Examples
    --------
    >>> sorted(["b/c/d", "b/x", "a/a", "c"], key=walk_order)
    ['c', 'a/a', 'b/x', 'b/c/d']
    """
    *folders, file = name.split("/")
    return *((1, folder) for folder in folders), (0, file)


def _stamp_in_store(info):
    changed = next((info[key] for key in ("ETag", "etag", "mtime", "created") if info.get(key)), "")
    return f"{str(changed).strip(chr(34))}-{info['size']}"


def stamp(path: str | Path) -> str:
    """Time and size of a local file as text, which differ when it is changed; empty if none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{status.st_mtime_ns}-{status.st_size}"


def stamps(paths: Sequence[str]) -> Iterator[str]:
    """The stamps of files, as `FoundFile` has them; empty for a file that does not exist.

    A store lists their folders: a request for each file would take hours.
    """
    folders = {path.rpartition("/")[0] for path in paths if is_url(path)}
    if len(folders) > FEW_FOLDERS:
        common, depth = os.path.commonpath(folders).replace(":/", "://", 1), None
        folders = {common}
    else:
        depth = 1
    found = {}
    for folder in folders:
        found.update((one.path, one.stamp) for one in _list_store(as_path(folder), depth))
    return (found.get(path, "") if is_url(path) else stamp(path) for path in paths)


def walk(folder: str | Path | UPath) -> Iterator[tuple[Path | UPath, list[str]]]:
    """Every folder below `folder`, itself first, with the sorted names of its files.

    Links are followed, but each folder is listed once; names that begin with a dot are skipped. A
    folder that cannot be listed is skipped, with a warning.
    """
    if is_url(folder):
        yield from _walk_store(as_path(folder))
        return
    for root, names in _walk_disk(folder):
        yield Path(root), names


def _walk_disk(folder):
    seen = set()
    for root, below, names in os.walk(folder, onerror=_warn, followlinks=True):
        if os.path.realpath(root) in seen:  # a symlink loop
            below.clear()
            continue
        seen.add(os.path.realpath(root))
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield root, sorted(name for name in names if not name.startswith("."))


def _walk_store(folder):
    folders = {}
    for file in _list_store(folder):
        parent, _, name = file.name.rpartition("/")
        folders.setdefault(parent, []).append(name)
    for parent in sorted(folders):
        yield folder / parent if parent else folder, sorted(folders[parent])


def _warn(error: OSError) -> None:
    name = printable(os.path.basename(error.filename))
    warnings.warn(
        f"The folder {name} was skipped ({error.strerror}).", MelgenreWarning, stacklevel=4
    )
