"""One shard of a collection: its images are made, or kept from its earlier version."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..data.image_files import GROUP_ROWS, read_image
from ..data.mel_settings import ImageError, MelSettings
from ..data.shards import read_rows
from ..files import atomic_write
from ..text import short
from .images import make_png

if TYPE_CHECKING:
    import pyarrow

HUB_FEATURES = {"info": {"features": {"image": {"_type": "Image"}}}}
"""Metadata by which `datasets` and the Hugging Face hub show the column as images."""


class _Image(NamedTuple):
    """An image of a shard."""

    content: bytes | str
    """The PNG, or its address in the shard's earlier version."""

    md5: str
    source: str | None
    """Checksum of the name, size and time of the recording, or of the image that was ready."""


def write_shard(
    file: Path,
    others: list[Path],
    rows: pyarrow.Table,
    recordings: list[tuple[str | None, bool, str | None]],
    settings: MelSettings,
) -> list[str | None]:
    """Write one shard unless it is up to date.

    Parameters
    ----------
    others
        Shards of another number of shards, which have some of the images.
    rows
        The table of its tracks, without images.
    recordings
        For each track, the file that its image is made from, whether this is an image, and a
        checksum that changes with the file.

    Returns
    -------
    list of (str or None)
        For each track None, or the reason why it has no image.

    Raises
    ------
    ImageError
        If the shard cannot be written.
    """
    table, own = _earlier_shard(file)
    earlier = {**own}
    for other in others:
        earlier = {**_earlier_shard(other)[1], **earlier}
    images, reasons = [], []
    for track, described in zip(rows["track_id"].to_pylist(), recordings, strict=True):
        recording, is_image, source = described
        image, reason = earlier.get(track), None
        if image is None or source not in (None, image.source):  # None: the recording is gone
            png, reason = _read_png(recording, is_image, settings)
            image = _Image(png, hashlib.md5(png).hexdigest(), source)
        reasons.append(reason)
        if reason is None:
            images.append(image)
    readable = np.array([reason is None for reason in reasons], bool)
    rows = _add_columns(rows.filter(readable), images)
    kept = [image.content for image in images] == [image.content for image in own.values()]
    if table is None or not kept or not table.equals(rows, check_metadata=True):
        _write_parquet(file, rows, images)
    return reasons


def _earlier_shard(file):
    """The rows of a shard without images, and its images by track; None and {} without a shard."""
    try:
        table = read_rows(file)
        columns = (table[name].to_pylist() for name in ("track_id", "image_md5", "source_md5"))
    except (OSError, ValueError, KeyError):  # there is none, or it is damaged
        return None, {}
    rows = enumerate(zip(*columns, strict=True))
    return table, {track: _Image(f"{file}#{row}", *sums) for row, (track, *sums) in rows}


def _read_png(recording, is_image, settings):
    """The PNG of a track and None, or b"" and the reason why there is none."""
    if not is_image:
        return make_png(recording, settings)
    try:
        return read_image(recording), None
    except OSError as error:
        return b"", f"its image cannot be read ({short(error)})."


def _add_columns(rows, images):
    """The rows with the checksums, and with the metadata of the hub."""
    import pyarrow as pa

    for name, position in (("image_md5", 1), ("source_md5", 2)):
        values = pa.array([image[position] for image in images], pa.string())
        rows = rows.append_column(name, values)
    return rows.replace_schema_metadata({b"huggingface": json.dumps(HUB_FEATURES)})


def _write_parquet(file, rows, images):
    """Write the rows and their images, one row group at a time."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = rows.schema.append(pa.field("image", kind))
    columns = [
        f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
        for field in rows.schema
    ]
    options = {
        "compression": {"image.bytes": "none", **dict.fromkeys(columns, "zstd")},
        "use_dictionary": columns,
        "write_statistics": columns,
        "write_page_checksum": True,
    }
    try:
        with atomic_write(file) as part, ParquetWriter(part, schema, **options) as writer:
            for start in range(0, len(images), GROUP_ROWS):
                some, group = rows.slice(start, GROUP_ROWS), images[start : start + GROUP_ROWS]
                pngs = [
                    {"bytes": _content(image), "path": f"{track}.png"}
                    for image, track in zip(group, some["track_id"].to_pylist(), strict=True)
                ]
                writer.write_table(some.append_column("image", pa.array(pngs, kind)))
    except OSError as error:
        # A full disk ends the run: the next shards could not be written either.
        raise ImageError(
            f"{file.name} cannot be written ({short(error)}). Make room or choose another folder, "
            "and run this again: it resumes."
        ) from error


def _content(image):
    return read_image(image.content) if isinstance(image.content, str) else image.content
