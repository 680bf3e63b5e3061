"""Files that are never there by half, and folders that are walked without going in circles."""

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path):
    """Give a temporary name beside `path`, which takes its place once the block ends well."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
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
