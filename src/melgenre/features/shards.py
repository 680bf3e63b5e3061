"""A collection -> images in shards: Parquet files of a thousand tracks, in parallel."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..data.image_files import GROUP_ROWS, image_key, read_image, shard_row
from ..data.mel_settings import ImageError, MelSettings, settle_settings
from ..data.shards import NUMBER_KEY, SHARD_NAMES, load_shards, read_rows, shard_name
from ..errors import extra_packages
from ..files import atomic_write, locked, sweep
from ..parallel import parallel_map
from ..text import names_below, short
from .images import _describe_source, _ready_images, make_png
from .skipped import report_skipped

if TYPE_CHECKING:
    import pandas as pd

MOST_TRACKS = 1000
"""Tracks of a shard, on average at most: some 40 MB, and what a killed run has to repeat."""

HUB_FEATURES = {"info": {"features": {"image": {"_type": "Image"}}}}
"""Metadata by which `datasets` and the Hugging Face hub show the column as images."""


def extract_shards(
    tracks: pd.DataFrame,
    folder: str | Path,
    *,
    settings: MelSettings = MelSettings(),
    progress: bool = True,
) -> pd.DataFrame:
    """Make the images of a collection that is too big for one file per track.

    The images are those of `extract_melspectrograms`, byte by byte, in Parquet files of up to a
    thousand tracks, `<folder>/images-00000.parquet` and so on, with the columns of the table.
    `datasets` and the viewer of the Hugging Face hub read them. A track's place is given by a hash
    of its `track_id`. So the order is random, as training needs it, and a new track changes one
    shard. The number of shards is a power of two; when a collection outgrows it, all shards are
    written again from the images that exist.

    The folder holds the images of this table alone: those of other tracks are deleted.

    An interrupted run resumes. A shard is kept if its tracks have not changed. An image is kept if
    its recording has the same name, size and time as before.

    Parameters
    ----------
    tracks
        With `track_id`, `genre`, `path` (missing if there is no sound), and possibly `image`: an
        image of these settings is used as it is.
    folder
        New, or of an earlier extraction.
    progress
        Show a progress bar.

    Returns
    -------
    pd.DataFrame
        As `load_shards` returns it: the tracks that have an image, in the order of the shards.
        `attrs["skipped"]` is a list of (name, reason) of the others; one `MelgenreWarning` names
        them.

    Raises
    ------
    ImageError
        If the folder has images of other settings, a `track_id` occurs twice, a column cannot be
        written, or no track could be read.
    """
    folder = Path(folder).resolve()  # for workers, which may have another working directory
    folder.mkdir(parents=True, exist_ok=True)
    if tracks["track_id"].duplicated().any():
        twice = tracks.loc[tracks["track_id"].duplicated(), "track_id"].iloc[0]
        raise ImageError(f"The track_id {twice!r} occurs twice. Give each track one of its own.")
    digests = tracks["track_id"].map(_md5).to_numpy(dtype=str)
    tracks = tracks.iloc[np.argsort(digests)]
    recordings = _recordings(tracks, settings)
    rows = _arrow_table(tracks, folder)
    count = _shard_count(len(tracks))
    # A shard's tracks are those whose first 32 bits are in its part of all numbers.
    first_bits = [int(digest[:8], 16) for digest in np.sort(digests)]
    bounds = np.searchsorted(first_bits, [(number << 32) // count for number in range(count + 1)])
    calls = []
    for number, (start, end) in enumerate(itertools.pairwise(bounds.tolist())):
        some = rows.take(np.arange(start, end)), recordings[start:end]
        calls.append((folder / shard_name(number), *some, settings, count))
    with locked(folder):
        settle_settings(settings, folder)
        sweep(folder)
        done = parallel_map(_write_shard, calls, desc="shards", unit=" shards", progress=progress)
        reasons = list(itertools.chain.from_iterable(done))
        for file in set(folder.glob(SHARD_NAMES)) - {file for file, *_ in calls}:
            file.unlink()  # of a larger collection
    names = names_below([
        name or track for (name, _), track in zip(recordings, tracks["track_id"], strict=True)
    ])  # fmt: skip
    skipped = [(name, reason) for name, reason in zip(names, reasons, strict=True) if reason]
    if len(skipped) == len(tracks):
        reason = ": ".join(skipped[0]) if skipped else "there is no track."
        raise ImageError(f"No track could be turned into an image. The first: {reason}")
    made = load_shards(folder)
    report_skipped(made, skipped, len(tracks))
    return made


def _md5(text):
    return hashlib.md5(os.fsencode(text)).hexdigest()


def _shard_count(n_tracks):
    """The smallest power of two with at most `MOST_TRACKS` tracks per shard, on average."""
    return 1 << max(0, (n_tracks - 1) // MOST_TRACKS).bit_length()


def _recordings(tracks, settings):
    """For each track, the file that its image is made from, and whether this is an image."""
    ready = _ready_images(tracks, settings)
    return [
        (image, True)
        if isinstance(image, str)
        else (os.path.abspath(path) if isinstance(path, str) else None, False)
        for image, path in zip(ready, tracks["path"], strict=True)
    ]


def _arrow_table(tracks, folder):
    """The table of tracks as the shards have it: without images, with paths below their folder."""
    with extra_packages("shards", "Images in shards"):
        import pyarrow as pa

    def relative(path):
        with suppress(ValueError):  # another drive of Windows; a name that is not UTF-8
            path = os.path.relpath(path, folder)
            path.encode()
            return path

    paths = tracks["path"].map(relative, na_action="ignore")
    tracks = tracks.assign(path=paths).drop(columns="image", errors="ignore")
    columns = {}
    for name, values in tracks.items():
        try:
            array = pa.array(values, from_pandas=True)
        except (pa.ArrowException, UnicodeEncodeError) as error:
            raise ImageError(
                f"The column {name} cannot be written to Parquet ({short(error)}). Give it values "
                "of one kind, or drop it."
            ) from error
        # A type that does not depend on the version of pandas, nor on whether a value is missing.
        is_text = pa.types.is_null(array.type) or pa.types.is_large_string(array.type)
        columns[name] = array.cast(pa.string()) if is_text else array
    return pa.table(columns)


class _Image(NamedTuple):
    """An image of a shard."""

    content: bytes | str
    """The PNG, or its address in the shard's earlier version."""

    md5: str
    source: str | None
    """Checksum of the name, size and time of the recording, or of the image that was ready."""


def _write_shard(file, rows, recordings, settings, count):
    """Write one shard unless it is up to date; returns for each track None, or why it has no image.

    Parameters
    ----------
    rows : pyarrow.Table
        Without images.
    recordings : list of (str or None, bool)
        Of `_recordings`.
    count : int
        Number of all shards.
    """
    table, earlier = _earlier_shard(file)
    images, reasons = [], []
    for track, (recording, is_image) in zip(rows["track_id"].to_pylist(), recordings, strict=True):
        image, reason = earlier.get(track), None
        source = _describe(recording, file.parent)
        if image is None or source not in (None, image.source):  # None: the recording is gone
            png, reason = _read_png(recording, is_image, settings)
            image = _Image(png, hashlib.md5(png).hexdigest(), source)
        reasons.append(reason)
        if reason is None:
            images.append(image)
    rows = _add_columns(rows.filter([reason is None for reason in reasons]), images, count)
    kept = [image.content for image in images] == [image.content for image in earlier.values()]
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


def _describe(recording, folder):
    """A checksum that changes with the recording; None if there is none."""
    if recording is not None and shard_row(recording):
        return image_key(recording)
    source = _describe_source(recording, folder)
    return source and _md5(json.dumps(source))


def _read_png(recording, is_image, settings):
    """The PNG of a track and None, or b"" and the reason why there is none."""
    if not is_image:
        return make_png(recording, settings)
    try:
        return read_image(recording), None
    except OSError as error:
        return b"", f"its image cannot be read ({short(error)})."


def _add_columns(rows, images, count):
    """The rows with the columns for checksums and with their metadata."""
    import pyarrow as pa

    for name, position in (("image_md5", 1), ("source_md5", 2)):
        values = pa.array([image[position] for image in images], pa.string())
        rows = rows.append_column(name, values)
    metadata = {b"huggingface": json.dumps(HUB_FEATURES), NUMBER_KEY: str(count)}
    return rows.replace_schema_metadata(metadata)


def _write_parquet(file, rows, images):
    """Write the rows and their images, one row group at a time."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = rows.schema.append(pa.field("image", kind))
    options = {
        "compression": {"image.bytes": "none", **dict.fromkeys(rows.column_names, "zstd")},
        "use_dictionary": rows.column_names,
        "write_statistics": rows.column_names,
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
