"""Files that are never there by half, folders that are walked without going in circles, names."""

import os
import zlib
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path):
    """Give a temporary name beside `path`, which takes its place once the block ends well."""
    path = Path(path)
    # Not the whole name: it may be as long as a name can be.
    part = path.with_name(f".{zlib.crc32(os.fsencode(path.name)):08x}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def walk(folder):
    """Every folder below `folder`, itself first, with the sorted names of its files.

    Links are followed, but a folder is seen once; what begins with a dot is left aside.

    Parameters
    ----------
    folder : str or Path

    Yields
    ------
    Path
    list of str
    """
    seen = set()
    for root, below, names in os.walk(folder, followlinks=True):
        if os.path.realpath(root) in seen:  # a link to a folder above would go round for ever
            below.clear()
            continue
        seen.add(os.path.realpath(root))
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield Path(root), sorted(name for name in names if not name.startswith("."))


def printable(path):
    """A path as text: what old archives left in a name that is not UTF-8 becomes `\\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


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
