"""Atomic writes, locks and temporary folders."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import MelgenreWarning
from .paths import as_path, is_url, upload
from .text import printable

MARK = ".melgenre-"
"""Start of the names of temporary files. They are short: a name has 255 bytes at most."""

LARGEST_JSON = 10_000_000
"""In bytes; settings and the description of a model have a few kilobytes."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary file that replaces `path` when the block ends without an error.

    Parameters
    ----------
    path
        A file in a folder that exists, or a URL.

    Yields
    ------
    Path
        The temporary file, empty, with the permissions of any new file: beside `path`, or for a URL
        in the system's folder for temporary files.
    """
    if is_url(path):
        with temporary_folder(tempfile.gettempdir()) as folder:
            part = folder / "file"
            part.touch()
            yield part
            upload(part, as_path(path))
        return
    path = Path(path)
    with _temporary(path.parent, Path.touch) as part:
        yield part
        os.replace(part, path)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` that replaces it when the block ends without an error.

    A process that is killed between the two renames leaves the earlier folder under another name;
    `restore` brings it back.

    Yields
    ------
    Path
        The temporary folder, empty.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path.parent, Path.mkdir) as part:
        yield part
        with locked(path):
            _restore(path)
            if path.exists():
                os.replace(path, _beside(path, ".previous"))
            os.replace(part, path)
            shutil.rmtree(_beside(path, ".previous"), ignore_errors=True)


def restore(path: str | Path) -> None:
    """Bring back a folder if a process was killed while it replaced it."""
    if _beside(Path(path), ".previous").exists():
        with locked(path):
            _restore(Path(path))


def _restore(path: Path) -> None:
    previous = _beside(path, ".previous")
    if path.exists():
        shutil.rmtree(previous, ignore_errors=True)
    elif previous.exists():
        os.replace(previous, path)


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keep other threads and processes from changing `path` during the block.

    The lock is a file of this user in the system's folder for temporary files, so it works among
    the processes of one machine. A second process waits, and warns that it does. On a system
    without locks, the block runs without one.

    Parameters
    ----------
    path
        A file or folder, which need not exist, or a URL.
    """
    from filelock import FileLock, Timeout  # imported here: a single prediction does not need it

    whole = str(path) if is_url(path) else os.path.realpath(path)
    locks = Path(tempfile.gettempdir(), f"melgenre-locks-{getattr(os, 'getuid', int)()}")
    name = hashlib.md5(os.fsencode(whole)).hexdigest()
    lock = FileLock(locks / f"{name}.lock")
    with suppress(OSError):
        locks.mkdir(mode=0o700, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:  # an OSError, too
            warnings.warn(
                f"Waiting for another process that writes {printable(Path(path).name)}.",
                MelgenreWarning,
                stacklevel=3,
            )
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def sweep(folder: str | Path) -> None:
    """Delete the temporary files and folders that killed processes left directly in `folder`.

    Those of running processes and of other users are kept. A URL's folder never has any.
    """
    if is_url(folder):
        return
    for part in filter(_is_ours, list(Path(folder).glob(f"{MARK}*.part"))):
        held = _hold(part)
        if held is not None:
            with suppress(OSError):  # of a read-only folder
                shutil.rmtree(part) if part.is_dir() else part.unlink()
            os.close(held)


@contextmanager
def temporary_folder(parent: str | Path) -> Iterator[Path]:
    """A temporary folder in `parent` for the block, which no other user of this machine may enter.

    Those that killed processes of this user left directly in `parent` are deleted first.

    Parameters
    ----------
    parent
        A folder, possibly one that all users of a machine share.
    """
    parent = Path(parent)
    sweep(parent)
    with _temporary(parent, lambda part: part.mkdir(mode=0o700)) as part:
        yield part


def _is_ours(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return path.lstat().st_uid == getattr(os, "getuid", int)()  # 0 on Windows
    return False


@contextmanager
def _temporary(folder: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """A new temporary file or folder, locked as long as its process runs."""
    held = None
    while held is None:
        part = folder / f"{MARK}{secrets.token_hex(6)}.part"
        make(part)
        held = _hold(part, missing=-1)  # None: another process has swept it away
    try:
        yield part
    finally:
        if held >= 0:
            os.close(held)
        shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)


def _hold(part: Path, missing: int | None = None) -> int | None:
    """A descriptor that locks `part`; None if another process holds it, `missing` without locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return missing
    held = None
    try:
        held = os.open(part, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(part)
        return held
    except OSError as error:
        if held is not None:
            os.close(held)
        return None if isinstance(error, (BlockingIOError, FileNotFoundError)) else missing


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{MARK}{zlib.crc32(os.fsencode(path.name)):08x}{suffix}")


def due_again(started: float, seconds: float, share: float) -> float:
    """When to write a file of a long run again: after `seconds`, or later where writing is slow.

    Parameters
    ----------
    started
        When the writing that has now ended began, by `time.monotonic`.
    seconds
        At least, until the next time.
    share
        Of the time, at most, that writing takes.
    """
    now = time.monotonic()
    return now + max(seconds, (now - started) / share)


def read_json(file: str | Path) -> Any:
    """The content of a small JSON file.

    Raises
    ------
    ValueError
        If it is larger than `LARGEST_JSON` bytes, not UTF-8, no JSON, or nested too deeply.
    """
    with as_path(file).open("rb") as opened:
        content = opened.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        raise ValueError(f"it is larger than {LARGEST_JSON / 1e6:.0f} MB")
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def project_folder() -> Path:
    """The folder of `data` and `models`, relative to the working directory.

    It is the folder named by the environment variable `MELGENRE_HOME`, else the repository, else
    the working directory. The path is relative so that a notebook that prints it shows no private
    folder.
    """
    if os.environ.get("MELGENRE_HOME"):
        return Path(os.path.relpath(os.environ["MELGENRE_HOME"]))
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "src" / "melgenre").is_dir():
            return Path(os.path.relpath(folder))
    return Path(".")
