"""Files and folders that are written whole or not at all; walking folders; names for messages."""

import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import warnings
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

FORMULA = re.compile(r"'*[=+\-@\t\r]")
MARK = ".melgenre-"
"""Begins the names of temporary files. They are short: a name has 255 bytes at most."""

LARGEST_JSON = 10_000_000
"""In bytes, of settings and of what a model says of itself; these have a few kilobytes."""


@contextmanager
def atomic_write(path):
    """A temporary file beside `path` that replaces it when the block ends without an error.

    Parameters
    ----------
    path : str or Path
        In a folder that exists.

    Yields
    ------
    Path
        The temporary file, empty, with the permissions of any new file.
    """
    path = Path(path)
    with _temporary(path.parent, Path.touch) as part:
        yield part
        os.replace(part, path)


@contextmanager
def atomic_folder(path):
    """A temporary folder beside `path` that replaces it when the block ends without an error.

    A process that is killed between the two renames leaves the earlier folder under another name;
    `restore` brings it back.

    Parameters
    ----------
    path : str or Path

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


def restore(path):
    """Bring back a folder if a killed process was about to replace it.

    Parameters
    ----------
    path : str or Path
    """
    if _beside(Path(path), ".previous").exists():
        with locked(path):
            _restore(Path(path))


def _restore(path):
    previous = _beside(path, ".previous")
    if path.exists():
        shutil.rmtree(previous, ignore_errors=True)
    elif previous.exists():
        os.replace(previous, path)


@contextmanager
def locked(path):
    """Keep other threads and processes from changing `path` during the block.

    The lock is a file of this user in the system's folder for temporary files, so it works among
    the processes of one machine. A second one waits, and prints that it does. Where there can be
    no locks, the block runs without one.

    Parameters
    ----------
    path : str or Path
        A file or folder, which need not exist.
    """
    from filelock import FileLock, Timeout  # here alone: a single prediction does not need it

    path = Path(path)
    locks = Path(tempfile.gettempdir(), f"melgenre-locks-{getattr(os, 'getuid', int)()}")
    name = hashlib.md5(os.fsencode(os.path.realpath(path))).hexdigest()
    lock = FileLock(locks / f"{name}.lock")
    with suppress(OSError):
        locks.mkdir(mode=0o700, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:  # an OSError, too
            print(f"Waiting for another process that writes {printable(path.name)}.", flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def sweep(folder):
    """Delete the temporary files and folders that killed processes left directly in `folder`.

    Those of processes that still run, and of other users, are kept.

    Parameters
    ----------
    folder : str or Path
    """
    for part in filter(_is_ours, list(Path(folder).glob(f"{MARK}*.part"))):
        held = _hold(part)
        if held is not None:
            with suppress(OSError):  # of a read-only folder
                shutil.rmtree(part) if part.is_dir() else part.unlink()
            os.close(held)


@contextmanager
def temporary_folder(parent):
    """A temporary folder in `parent` for the block, that nobody else on this machine may enter.

    Those that killed processes left directly in `parent` are deleted first.

    Parameters
    ----------
    parent : str or Path
        Often the folder that all users of a machine share; what others left in it is kept.

    Yields
    ------
    Path
    """
    parent = Path(parent)
    sweep(parent)
    with _temporary(parent, lambda part: part.mkdir(mode=0o700)) as part:
        yield part


def _is_ours(path):
    with suppress(FileNotFoundError):
        return path.lstat().st_uid == getattr(os, "getuid", int)()  # 0 on Windows
    return False


@contextmanager
def _temporary(folder, make):
    """A new temporary file or folder, locked for as long as its process lives."""
    held = None
    while held is None:
        part = folder / f"{MARK}{secrets.token_hex(6)}.part"
        make(part)
        held = _hold(part, missing=-1)  # None: `sweep` was faster
    try:
        yield part
    finally:
        if held >= 0:
            os.close(held)
        shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)


def _hold(part, missing=None):
    """A descriptor that locks `part`; None if another has it, `missing` without locks."""
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


def _beside(path, suffix):
    return path.with_name(f"{MARK}{zlib.crc32(os.fsencode(path.name)):08x}{suffix}")


def walk(folder):
    """Every folder below `folder`, itself first, with the sorted names of its files.

    Links are followed, but a folder is seen once; what begins with a dot is left aside. A folder
    that cannot be listed is skipped, with a warning.

    Parameters
    ----------
    folder : str or Path

    Yields
    ------
    Path
    list of str
    """
    seen = set()
    for root, below, names in os.walk(folder, onerror=_warn, followlinks=True):
        if os.path.realpath(root) in seen:  # a link to a folder above would go round for ever
            below.clear()
            continue
        seen.add(os.path.realpath(root))
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield Path(root), sorted(name for name in names if not name.startswith("."))


def read_json(file):
    """The content of a small JSON file.

    Parameters
    ----------
    file : str or Path

    Returns
    -------
    dict, list, str, float, int, bool or None

    Raises
    ------
    ValueError
        If it is larger than `LARGEST_JSON` bytes, not UTF-8, no JSON, or nested too deeply.
    """
    with open(file, "rb") as opened:
        content = opened.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        raise ValueError(f"it is larger than {LARGEST_JSON / 1e6:.0f} MB")
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _warn(error):
    warnings.warn(
        f"{printable(error.filename)}: this folder was skipped ({error.strerror}).", stacklevel=3
    )


CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that could move the cursor of a terminal, colour it, or turn text around."""


def path_text(path):
    """A path as text that can be written to a file: bytes that are not UTF-8 become `\\xe9`.

    Two paths never become the same text: a backslash that is part of a name is doubled.
    """
    text = os.fsencode(path)
    if os.sep == "/":
        text = text.replace(b"\\", b"\\\\")
    return text.decode("utf-8", "backslashreplace")


def escape_control(text):
    """A text for a terminal: characters that a terminal would obey become `\\x1b` or `\\u202e`."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable(path):
    """A path as text that can be printed: as `path_text`, with control characters escaped too."""
    return escape_control(path_text(path))


def spreadsheet_safe(cell):
    """A cell of a CSV as it is written: a text that a spreadsheet would run gets a quote in front.

    Parameters
    ----------
    cell : object
        Everything but text is returned as it is.

    Returns
    -------
    object
    """
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def spreadsheet_plain(cell):
    """The inverse of `spreadsheet_safe`."""
    safe = isinstance(cell, str) and cell.startswith("'") and FORMULA.match(cell)
    return cell[1:] if safe else cell


def short(error):
    """What an error says, at most 300 characters that can be printed and written to a file."""
    words = str(error).encode("utf-8", "backslashreplace").decode()
    return printable(words if len(words) <= 300 else f"{words[:300]}…")


def names_below(paths):
    """What to call files in a sentence: their paths below the folder that they have in common.

    Each name has at least one folder, since `song.mp3` may be in many albums.

    Parameters
    ----------
    paths : list of str or Path

    Returns
    -------
    list of str
    """
    if not paths:
        return []
    paths = [Path(os.path.abspath(path)) for path in paths]
    common = Path(os.path.commonpath([path.parent for path in paths]))
    if common in (path.parent for path in paths):
        common = common.parent
    return [printable(path.relative_to(common)) for path in paths]


def project_folder():
    """The folder of `data` and `models`, relative to the working directory.

    It is the folder named by the environment variable `MELGENRE_HOME`, else the repository, else
    the working directory. Paths stay relative, so what a notebook prints names no folder of
    anybody's machine.
    """
    if os.environ.get("MELGENRE_HOME"):
        return Path(os.path.relpath(os.environ["MELGENRE_HOME"]))
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "src" / "melgenre").is_dir():
            return Path(os.path.relpath(folder))
    return Path(".")
