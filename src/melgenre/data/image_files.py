"""An image by its address: a PNG file, or a row of a shard.

A shard is a Parquet file with one track per row and its PNG in the column `image`. The address of
its row 17 is `<folder>/images-00000-of-00128.parquet#17`. All images are opened here.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import extra_packages
from ..paths import as_path, is_url, patiently
from ..text import printable, short

if TYPE_CHECKING:
    import pyarrow

ADDRESS = re.compile(r"(.+\.parquet)#(\d+)", re.DOTALL)

GROUP_ROWS = 100
"""Tracks in a row group, the part of a shard that is read at a time: some 4 MB."""

GROUPS_IN_MEMORY = 16
"""Row groups that are kept in memory. Training shuffles the images of as many at a time."""


def shard_row(image: str | Path) -> tuple[str, int] | None:
    """The shard and the row of an image; None if the image is a file of its own.

    Examples
    --------
    >>> shard_row("images/images-00002.parquet#17")
    ('images/images-00002.parquet', 17)
    >>> shard_row("images/jazz/song.png")
    """
    found = ADDRESS.fullmatch(str(image))
    return (found[1], int(found[2])) if found else None


def image_file(image: str | Path) -> str:
    """The file that an image is in: its own, or its shard."""
    shard = shard_row(image)
    return shard[0] if shard else str(image)


def image_exists(image: str | Path) -> bool:
    """Whether there is the file of an image, or its shard."""
    return as_path(image_file(image)).exists()


def read_image(image: str | Path) -> bytes:
    """The bytes of the PNG at an address.

    Of a shard, a whole row group is read and kept for the next images: addresses in the order of
    the shards are read fastest.

    Raises
    ------
    OSError
        If the file cannot be read, or a shard is damaged or has no such row.
    """
    shard = shard_row(image)
    if shard is None:
        return patiently(as_path(image).read_bytes, subject=image)
    file, row = shard
    try:
        group, row = _find_row(file, row)
        return _row_group(file, group, _version(file))[row].as_py()
    except (ValueError, IndexError, OSError) as error:  # pyarrow's errors are among these
        raise _unreadable(file, error) from error


def image_key(image: str | Path) -> str:
    """The MD5 checksum of an image's PNG; a shard has it in a column and need not read the image.

    Raises
    ------
    OSError
        As `read_image`.
    """
    shard = shard_row(image)
    if shard is None:
        return hashlib.md5(read_image(image)).hexdigest()
    file, row = shard
    try:
        return _keys(file, _version(file))[row].as_py()
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise _unreadable(file, error) from error


def open_shard(file: str | Path, **options: Any) -> pyarrow.parquet.ParquetFile:
    """A shard as pyarrow's file, which verifies the checksum of each page that it reads."""
    with extra_packages("shards", "Images in shards"):
        from pyarrow.parquet import ParquetFile
    if is_url(file):
        file = patiently(as_path(file).open, "rb", subject=file)
    return ParquetFile(file, page_checksum_verification=True, **options)


def _find_row(file, row):
    """Number of the row group, and the row within it."""
    footer = _footer(file, _version(file))
    for group in range(footer.num_row_groups):
        rows = footer.row_group(group).num_rows
        if row < rows:
            return group, row
        row -= rows
    raise IndexError("it has fewer rows")


def _version(file):
    """What changes whenever a local file is written; a store would be asked for each image."""
    if is_url(file):
        return None
    status = os.stat(file)
    return status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=256)
def _footer(file, _version):
    return open_shard(file).metadata


@lru_cache(maxsize=GROUPS_IN_MEMORY)
def _row_group(file, group, version):
    """The PNGs of a row group [pyarrow array of bytes]."""
    with open_shard(file, metadata=_footer(file, version)) as opened:
        return opened.read_row_group(group, ["image.bytes"])["image"].combine_chunks().field(0)


@lru_cache(maxsize=4096)
def _keys(file, _version):
    """The checksums of the images of a shard [pyarrow array]."""
    with open_shard(file) as opened:
        return opened.read(["image_md5"])["image_md5"].combine_chunks()


def _unreadable(file, error):
    name = printable(os.path.basename(file))
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(error.errno, "No such shard", name)
    return OSError(
        f"{name} cannot be read ({short(error)}). Delete it, and extract the shards again."
    )
