"""The table of tracks of a folder of shards."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import extra_packages
from ..text import printable, short
from .image_files import open_shard
from .mel_settings import ImageError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

IMAGE_COLUMNS = ("image", "image_md5", "source_md5")
"""Columns of a shard beside those of the table: the PNG, its checksum, and that of the name, size
and time of the recording."""

SHARD_NAMES = "images-*.parquet"
"""What `shard_name` gives, as a pattern."""

NUMBER_KEY = b"melgenre.shards"
"""In the metadata of a shard: the number of all shards."""


def load_shards(folder: str | Path) -> pd.DataFrame:
    """The table of tracks of a folder of shards; no image is read.

    Parameters
    ----------
    folder
        Written by `melgenre.extract_shards`.

    Returns
    -------
    pd.DataFrame
        The columns of the table that was extracted, in the order of the shards, which is random
        but always the same. `image` is the address of each image, such as
        `<folder>/images-00000.parquet#17`; `path` is absolute.

    Raises
    ------
    ImageError
        If there is no shard, one is missing or damaged, or they belong to two extractions.
    """
    with extra_packages("shards", "Images in shards"):
        import pandas as pd
        import pyarrow as pa

    folder = Path(folder).resolve()
    files = sorted(folder.glob(SHARD_NAMES))
    if not files:
        raise ImageError(
            f"No shards in {printable(folder.name)!r}. melgenre.extract_shards writes them."
        )
    parts, images, numbers = [], [], set()
    for file in files:
        try:
            rows = read_rows(file)
        except (OSError, ValueError) as error:
            raise ImageError(
                f"The shard {file.name} is damaged ({short(error)}). Extract the shards again."
            ) from error
        numbers.add(json.loads(rows.schema.metadata.get(NUMBER_KEY, b"0")))
        parts.append(rows.select([one for one in rows.column_names if one not in IMAGE_COLUMNS]))
        images.append(pa.array([f"{file}#{row}" for row in range(len(rows))], pa.string()))
    if numbers != {len(files)}:
        raise ImageError(
            f"{printable(folder.name)} has {len(files)} shards of an extraction into "
            f"{' or '.join(map(str, sorted(numbers)))}. Extract the shards again: it resumes."
        )
    table = pa.concat_tables([part.replace_schema_metadata() for part in parts])
    # Whole numbers stay whole where some are missing.
    types = {pa.int64(): pd.Int64Dtype()}.get
    tracks = table.append_column("image", pa.chunked_array(images)).to_pandas(types_mapper=types)
    if "path" in tracks:
        tracks["path"] = tracks["path"].map(
            lambda path: os.path.normpath(folder / path), na_action="ignore"
        )
    return tracks


def shard_name(number: int) -> str:
    """The name of a shard's file.

    Examples
    --------
    >>> shard_name(17)
    'images-00017.parquet'
    """
    return f"images-{number:05}.parquet"


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
