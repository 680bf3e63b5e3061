"""A folder of music -> the table of tracks.

Any folder of `<genre>/<song>` or `<genre>/<artist>/<album>/<song>` is a collection: GTZAN as its
archives unpack (`genres/…`, `Data/genres_original/…`), images made earlier, or a user's music.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..errors import MelgenreWarning
from ..files import project_folder
from ..paths import as_path, is_url, walk
from ..text import printable
from .audio import AUDIO_SUFFIXES
from .genres import split_genres
from .gtzan import gtzan_metadata
from .mel_settings import ImageError, check_image
from .metadata import CollectionError, user_metadata

if TYPE_CHECKING:
    from upath import UPath

WRAPPERS = frozenset(
    ("audio", "data", "genres", "genres_original", "images", "images_original", "mels", "music")
    + ("pictures", "songs", "wav", "wavs")
)
"""Names of folders above those of the genres, in lower case."""

OWN_FILES = ("tracks.csv", "SYNTHETIC.md", "mel_settings.json", "sources.json")
"""Files of a collection that are not tracks, and are not counted as skipped."""


class CollectionWarning(MelgenreWarning):
    """Something about a collection that limits what its results mean."""


def find_tracks(folder: str | Path | UPath) -> pd.DataFrame:
    """The table of tracks of a folder.

    Sound and images made earlier are found at any depth. The first folder below `folder` is the
    genre, except for the usual names in `WRAPPERS`; of songs that are deeper, the second is the
    artist and the third the album. A `tracks.csv` in the folder adds columns by `track_id`, such
    as `artist_id`; it cannot change the columns that melgenre fills. Its column `genres`, such as
    `rock;punk`, makes `genre` a list, in place of the folder's name: songs of several genres.
    GTZAN's tracks get their published metadata.

    Parameters
    ----------
    folder
        A path, or a URL such as `s3://bucket/music`.

    Returns
    -------
    pd.DataFrame
        One row per track, sorted: `track_id` (the file below the collection, without its ending),
        `genre` (a name, or a sorted list of names), `artist_id`, `path`, `image` (absolute; each of
        the last three is missing where there is none), `collection`; `album` if folders name them;
        and for GTZAN `artist_fold`, `fault_filtered_split`, `md5_wav`. `attrs["skipped"]` is a
        dict: for each file name ending, the number of files that are not tracks.

    Raises
    ------
    CollectionError
        If the folder is missing or holds no `<genre>/<song>`.
    """
    folder = as_path(folder)
    if not is_url(folder) and not folder.is_dir():
        raise CollectionError(
            f"No folder {printable(folder.name)!r}. Pass a folder of <genre>/<song> files, or an "
            "archive of one."
        )
    found, skipped = _find_files(folder.resolve())
    if not found:
        name = printable(folder.name)
        raise CollectionError(
            f"No music in {name!r}. A collection is a folder with one folder per genre and the "
            f"songs in these, as in {name}/jazz/song.mp3."
        )
    tracks = _table_of(found)
    is_gtzan = tracks["track_id"].isin(gtzan_metadata()["track_id"]).mean() > 0.5
    metadata = gtzan_metadata() if is_gtzan else user_metadata(folder)
    artists = tracks.pop("artist_id") if "artist_id" in tracks else None
    new = [one for one in metadata if one == "track_id" or one not in ("genre", *tracks)]
    tracks = tracks.merge(metadata[new], on="track_id", how="left")
    if artists is not None:
        named = tracks.get("artist_id", artists)
        tracks["artist_id"] = named.where(named.notna(), artists)
    if "genres" in tracks:
        tracks["genre"] = _several_genres(tracks["genre"], tracks.pop("genres"))
    tracks["collection"] = "gtzan" if is_gtzan else _unique_name(folder)
    first = ["track_id", "genre", "artist_id", "path", "image", "collection"]
    tracks = tracks.reindex(columns=first + [c for c in tracks if c not in first])
    tracks.attrs["skipped"] = skipped
    return tracks


def _several_genres(folders: pd.Series, texts: pd.Series) -> pd.Series:
    """The genres that a `tracks.csv` names, as lists; that of the folder where it names none."""
    if texts.isna().all():
        return folders
    named = texts.fillna("").map(split_genres)
    return named.where(named.map(bool), folders.map(lambda folder: [folder]))


def _unique_name(folder: Path) -> str:
    """The folder's name; with a hash unless it is in the project's `data`, where names differ."""
    if is_url(folder):
        digest = hashlib.md5(str(folder).encode()).hexdigest()[:6]
        return f"{folder.name or 'collection'}-{digest}"
    whole = folder.resolve()
    name = whole.name
    if (folder / "SYNTHETIC.md").exists() and not name.startswith("synthetic"):
        name = f"synthetic-{name}"  # also in the description of a model trained on it
    data = project_folder().resolve() / "data"
    return name if whole.parent in (data, data / "unpacked") else f"{name}-{path_hash(whole)}"


def path_hash(path: Path) -> str:
    """Six characters that distinguish a path from others of the same name."""
    return hashlib.md5(bytes(path)).hexdigest()[:6]


def _find_files(folder: Path) -> tuple[dict, dict]:
    """The tracks below a folder, and the number of other files by their ending.

    A track is found by its genre, then its `track_id`: a list of the file of its sound, that of
    its image, and the folders of its artist and album. Of a million, this takes the least memory.
    """
    tracks, skipped, unusable = {}, Counter(), []
    for place, names in walk(folder):
        # A name becomes part of tables, models and messages: as text that can be printed.
        parts = tuple(map(printable, place.relative_to(folder).parts))
        start = f"{place}/" if is_url(place) else os.path.join(place, "")
        for name in names:
            stem, suffix = os.path.splitext(name)
            path, suffix = start + name, suffix.lower()
            genre, track, below = _genre_of(parts, printable(stem))
            if genre is None or suffix not in AUDIO_SUFFIXES | {".png"}:
                skipped[printable(suffix) or "without ending"] += name not in OWN_FILES
                continue
            if suffix == ".png" and (error := _image_error(path)) is not None:
                unusable.append(error)
                continue
            of_genre = tracks.setdefault(genre, {})
            if suffix == ".png":
                of_genre[track] = [of_genre.get(track, [None])[0], path, below]
            else:
                track = _unique_id(track, of_genre)
                of_genre[track] = [path, of_genre.get(track, [None, None])[1], below]
    if unusable and not tracks:
        raise CollectionError(f"{len(unusable)} images cannot be used, the first: {unusable[0]}")
    if unusable:
        message = f"{len(unusable)} images were skipped, the first: {unusable[0]}"
        warnings.warn(message, CollectionWarning, stacklevel=3)
    return tracks, dict(+skipped)


def _image_error(path: str) -> ImageError | None:
    """Why an image cannot be used; one of a store is not opened, which takes a request each."""
    try:
        if not is_url(path):
            check_image(path)
    except ImageError as error:
        return error
    return None


def _table_of(found: dict) -> pd.DataFrame:
    """The tracks of `_find_files`, sorted."""
    names = ["track_id", "genre", "path", "image", "artist_id", "album"]
    columns = {name: [] for name in names}
    for genre in sorted(found):
        for track in sorted(found[genre]):
            path, image, below = found[genre][track]
            artist, album = (*below, None, None)[:2]
            row = track, genre, path, image, artist, album
            for name, cell in zip(names, row, strict=True):
                columns[name].append(cell)
    for name in ("artist_id", "album"):
        if not any(columns[name]):
            del columns[name]
    return pd.DataFrame(columns, dtype=object)


def _genre_of(folders: tuple[str, ...], stem: str) -> tuple[str | None, str, tuple[str, ...]]:
    """Genre, track_id and the folders between them of a file; the genre is None if it has none."""
    if folders and stem.startswith(f"{folders[-1]}."):  # as GTZAN names its clips, at any depth
        return folders[-1], stem, ()
    while folders and folders[0].lower() in WRAPPERS:
        folders = folders[1:]
    if not folders:
        return None, stem, ()
    return folders[0], "/".join([*folders, stem]), folders[1:]


def _unique_id(track: str, taken: dict) -> str:
    """`track`, or `track (2)`, … where songs of one name exist in two formats or two folders."""
    names = itertools.chain([track], (f"{track} ({n})" for n in itertools.count(2)))
    return next(name for name in names if name not in taken or taken[name][0] is None)
