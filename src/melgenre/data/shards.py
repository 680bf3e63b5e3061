"""The table of tracks of a folder of shards."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import extra_packages
from ..paths import as_path, is_url
from ..text import printable, short
from .image_files import open_shard
from .mel_settings import ImageError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow
    from upath import UPath

IMAGE_COLUMNS = ("image", "image_md5", "source_md5")
"""Columns of a shard beside those of the table: the PNG, its checksum, and that of the name, size
and time of the recording."""

SHARD_NAME = re.compile(r"images-(\d{5,})-of-(\d{5,})\.parquet")


def load_shards(folder: str | Path | UPath) -> pd.DataFrame:
    """The table of tracks of a folder of shards; no image is read.

    Parameters
    ----------
    folder
        Written by `melgenre.extract_shards`; a path or a URL.

    Returns
    -------
    pd.DataFrame
        The columns of the table that was extracted, in the order of the shards, which is random
        but always the same. `image` is the address of each image, such as
        `<folder>/images-00000-of-00128.parquet#17`; `path` is absolute; several genres per song are
        lists.

    Raises
    ------
    ImageError
        If there are no shards, one is damaged, or they are not those of one finished extraction.
    """
    with extra_packages("shards", "Images in shards"):
        import pyarrow  # noqa: F401

    folder = as_path(folder) if is_url(folder) else Path(folder).resolve()
    return load_files(folder, _finished(folder))


def load_files(folder: Path | UPath, files: Iterable[Path | UPath]) -> pd.DataFrame:
    """The table of tracks of some shards in a folder: see `load_shards`."""
    import pandas as pd
    import pyarrow as pa

    parts, images = [], []
    for file in files:
        try:
            rows = read_rows(file)
        except (OSError, ValueError) as error:
            raise ImageError(
                f"The shard {file.name} is damaged ({short(error)}). Extract the shards again."
            ) from error
        parts.append(rows.select([one for one in rows.column_names if one not in IMAGE_COLUMNS]))
        images.append(pa.array([f"{file}#{row}" for row in range(len(rows))], pa.string()))
    table = pa.concat_tables([part.replace_schema_metadata() for part in parts])
    # Whole numbers stay whole where some are missing.
    types = {pa.int64(): pd.Int64Dtype()}.get
    tracks = table.append_column("image", pa.chunked_array(images)).to_pandas(types_mapper=types)
    for field in table.schema:
        if pa.types.is_list(field.type):  # which pandas gets as arrays
            tracks[field.name] = tracks[field.name].map(list, na_action="ignore")
    if "path" in tracks:
        tracks["path"] = tracks["path"].map(
            lambda path: path if is_url(path) else os.path.normpath(folder / path),
            na_action="ignore",
        )
    return tracks


def shard_name(number: int, count: int) -> str:
    """The name of a shard's file, in the manner of the Hugging Face hub.

    Examples
    --------
    >>> shard_name(17, 128)
    'images-00017-of-00128.parquet'
    """
    return f"images-{number:05}-of-{count:05}.parquet"


def find_shards(folder: Path | UPath) -> dict[int, dict[int, Path | UPath]]:
    """The shards in a folder: for each number of all shards, the files by their own number."""
    found = {}
    for file in sorted(folder.glob("images-*.parquet"), key=str):
        numbers = SHARD_NAME.fullmatch(file.name)
        if numbers:
            found.setdefault(int(numbers[2]), {})[int(numbers[1])] = file
    return found


def _finished(folder):
    """The files of the only extraction of which all shards are there."""
    found = find_shards(folder)
    finished = [files for count, files in found.items() if len(files) == count]
    if not found:
        raise ImageError(
            f"No shards in {printable(folder.name)!r}. melgenre.extract_shards writes them."
        )
    if len(finished) != 1:
        there = ", ".join(f"{len(files)} of {count}" for count, files in found.items())
        raise ImageError(
            f"The shards in {printable(folder.name)!r} are those of an extraction that was "
            f"interrupted ({there}). Extract them again: it resumes."
        )
    return finished[0].values()


def read_rows(file: str | Path) -> pyarrow.Table:
    """All columns of a shard but the images.

    Raises
    ------
    OSError, ValueError
        If it is missing or damaged.
    """
    with open_shard(file) as opened:
        columns = [one for one in opened.schema_arrow.names if one != "image"]
        return opened.read(columns)
