"""A collection -> images in shards: Parquet files of a thousand tracks, in parallel."""

from __future__ import annotations

import hashlib
import itertools
import os
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.genres import genre_lists, is_multi_label
from ..data.image_files import image_key, shard_row
from ..data.mel_settings import ImageError, MelSettings, settle_settings
from ..data.shards import find_shards, load_files, shard_name
from ..errors import extra_packages
from ..files import locked, sweep
from ..parallel import parallel_map
from ..paths import absolute, as_path, is_url
from ..shard import Shard
from ..text import names_below, short
from .images import _ready_images
from .shard_writer import write_shard
from .skipped import report_skipped
from .sources import sources_of

if TYPE_CHECKING:
    import pandas as pd

MOST_TRACKS = 1000
"""Tracks of a shard, on average at most: some 40 MB, and what a killed run has to repeat."""


def extract_shards(
    tracks: pd.DataFrame,
    folder: str | Path,
    *,
    settings: MelSettings = MelSettings(),
    shard: Shard | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Make the images of a collection that is too big for one file per track.

    The images are those of `extract_melspectrograms`, byte by byte, in Parquet files of up to a
    thousand tracks, such as `<folder>/images-00000-of-00128.parquet`, with the columns of the
    table. `datasets` and the viewer of the Hugging Face hub read them. A track's place is given by
    a hash of its `track_id`. So the order is random, as training needs it, and a new track changes
    one shard. The number of shards is a power of two; when a collection outgrows it, all shards are
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
        New, or of an earlier extraction; a path or a URL.
    shard
        Only this share of the files. `load_shards` reads them when all are there.
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
    if not is_url(folder):
        folder = Path(folder).resolve()  # for workers, which may have another working directory
        folder.mkdir(parents=True, exist_ok=True)
    folder = as_path(folder)
    if tracks["track_id"].duplicated().any():
        twice = tracks.loc[tracks["track_id"].duplicated(), "track_id"].iloc[0]
        raise ImageError(f"The track_id {twice!r} occurs twice. Give each track one of its own.")
    digests = tracks["track_id"].map(_md5).to_numpy(dtype=str)
    tracks = tracks.iloc[np.argsort(digests)]
    recordings, rows = list(_recordings(tracks, settings, folder)), _arrow_table(tracks, folder)
    bounds = _bounds(np.sort(digests))
    count = len(bounds) - 1
    parts = list(enumerate(itertools.pairwise(bounds)))
    parts = parts if shard is None else list(shard.of(parts))
    with locked(folder if shard is None else shard.file(folder)):
        settle_settings(settings, folder)
        sweep(folder)
        found = find_shards(folder)
        calls = (
            (
                folder / shard_name(number, count),
                _overlapping(found, number, count),
                rows.take(np.arange(start, end)),
                recordings[start:end],
                settings,
            )
            for number, (start, end) in parts
        )
        done = parallel_map(
            write_shard,
            calls,
            total=len(parts),
            desc="shards",
            unit=" shards",
            progress=progress,
            serial=1,  # a shard has a thousand images
        )
        reasons = [one for _, one in sorted(done, key=itemgetter(0))]
        if shard is None:
            _delete_others(found, count)
    used = [row for _, (start, end) in parts for row in range(start, end)]
    names = names_below([recordings[row][0] or tracks["track_id"].iloc[row] for row in used])
    reasons = list(itertools.chain.from_iterable(reasons))
    skipped = [(name, reason) for name, reason in zip(names, reasons, strict=True) if reason]
    if len(skipped) == len(used):
        reason = ": ".join(skipped[0]) if skipped else "there is no track."
        raise ImageError(f"No track could be turned into an image. The first: {reason}")
    made = load_files(folder, [folder / shard_name(number, count) for number, _ in parts])
    report_skipped(made, skipped, len(used))
    return made


def _delete_others(found, count):
    """Delete the files of other numbers of shards."""
    for number, files in found.items():
        if number != count:
            for file in files.values():
                file.unlink()


def _md5(text):
    return hashlib.md5(os.fsencode(text)).hexdigest()


def _bounds(digests):
    """The first track of each shard, and the number of tracks.

    A shard's tracks are those whose hash begins with 32 bits in its part of all such numbers.
    """
    count = 1 << max(0, (len(digests) - 1) // MOST_TRACKS).bit_length()
    first_bits = [int(digest[:8], 16) for digest in digests]
    return np.searchsorted(first_bits, [(n << 32) // count for n in range(count + 1)]).tolist()


def _overlapping(found, number, count):
    """The shards of other numbers of shards that may have tracks of shard `number` of `count`."""
    return [
        file
        for other, files in found.items()
        if other != count
        for theirs, file in files.items()
        if theirs * count < (number + 1) * other and number * other < (theirs + 1) * count
    ]


def _recordings(tracks, settings, folder):
    """For each track, the file that its image is made from, whether this is an image, and a
    checksum that changes with the file; None without a file."""
    ready = _ready_images(tracks, settings)
    is_image = ready.notna().tolist()
    files = [
        absolute(one) if isinstance(one, str) else None for one in ready.fillna(tracks["path"])
    ]
    alone = [None if one is None or shard_row(one) else one for one in files]
    for file, image, source in zip(files, is_image, sources_of(alone, folder), strict=True):
        if file is not None and shard_row(file):
            yield file, image, image_key(file)
        else:
            yield file, image, source and hashlib.md5(source.encode()).hexdigest()


def _arrow_table(tracks, folder):
    """The table of tracks as the shards have it: without images, with paths below their folder."""
    with extra_packages("shards", "Images in shards"):
        import pyarrow as pa

    def relative(path):
        if is_url(path):
            return path
        if is_url(folder):
            return None
        with suppress(ValueError):  # another drive of Windows; a name that is not UTF-8
            path = os.path.relpath(path, folder)
            path.encode()
            return path

    paths = tracks["path"].map(relative, na_action="ignore")
    tracks = tracks.assign(path=paths).drop(columns="image", errors="ignore")
    if is_multi_label(tracks):
        tracks["genre"] = genre_lists(tracks)
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
        if pa.types.is_list(array.type):  # named as Parquet names it
            array = array.cast(pa.list_(pa.field("element", array.type.value_type)))
        columns[name] = array.cast(pa.string()) if is_text else array
    return pa.table(columns)
