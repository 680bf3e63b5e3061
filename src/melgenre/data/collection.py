"""A name, a folder, an archive or a download -> the table of tracks."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd

from ..files import project_folder
from ..paths import as_path, is_url, walk
from ..text import listed
from .archives import is_archive, unpack
from .audio import AUDIO_SUFFIXES
from .download import download
from .genres import one_row_per_genre
from .gtzan import verify_gtzan
from .synthetic.collection import make_synthetic_collection
from .tracks import CollectionWarning, find_tracks, path_hash

DOWNLOADS = {
    "gtzan": "https://huggingface.co/datasets/marsyas/gtzan/resolve/main/data/genres.tar.gz",
    "gtzan-mini": "https://github.com/TempoBeatDownbeat/gtzan_mini/archive/refs/heads/main.zip",
}
"""The whole of GTZAN (1.2 GB, 1000 clips), and 100 of its clips to start with."""

SYNTHETIC_CLIPS = 6  # per genre: enough to run everything in minutes and without a GPU
SYNTHETIC_WARNING = (
    "SYNTHETIC MUSIC: made up by melgenre because no collection was found. Everything runs, but "
    "an accuracy on it means nothing for real music. Put GTZAN into data/gtzan, or set "
    'COLLECTION to "gtzan-mini" or "gtzan" to download it.'
)

VERIFIED = ".verified"
"""In an unpacked folder of GTZAN: its clips have been compared with their md5 sums."""

FEW_SONGS = 10
"""A genre of fewer songs gets a warning: hardly one of them is left for the test."""


def load_collection(
    name: str | Path = "auto", *, data: str | Path | None = None, progress: bool = True
) -> pd.DataFrame:
    """Find, download or generate a collection.

    Warnings (`CollectionWarning`) report synthetic music, skipped files, a single genre, genres
    with few songs, and clips of a newly unpacked GTZAN that are missing or changed.

    Parameters
    ----------
    name
        `"gtzan"` or `"gtzan-mini"`: from `data`, downloaded first if it is missing.
        `"synthetic"`: generated. A folder or an archive: that one. `"auto"`: the folder named
        by the environment variable `MELGENRE_DATA`, else `data/gtzan` or `data/gtzan-mini` if one
        of them holds music, else synthetic; on Colab `"gtzan-mini"` instead.
    data
        Folder for collections; the project's `data` if None.
    progress
        Show progress bars.

    Returns
    -------
    pd.DataFrame
        The table of tracks, as `find_tracks` makes it.

    Raises
    ------
    CollectionError
        If there is no music where it should be.
    DownloadError
        If a download fails, or an archive cannot be unpacked.
    """
    data = project_folder() / "data" if data is None else Path(data)
    name = str(name)
    if name == "auto":
        available = (str(data / known) for known in DOWNLOADS if _has_media(data / known))
        otherwise = "gtzan-mini" if "google.colab" in sys.modules else "synthetic"
        name = os.environ.get("MELGENRE_DATA") or next(available, otherwise)
    if name == "synthetic":
        folder = make_synthetic_collection(
            data / "synthetic", clips_per_genre=SYNTHETIC_CLIPS, progress=progress
        )
    elif name in DOWNLOADS:
        folder = data / name
        if not _has_media(folder):
            url = DOWNLOADS[name]
            download(url, folder / url.rpartition("/")[2], progress=progress)
    else:
        folder = as_path(name)
        if not is_url(folder) and not folder.is_absolute() and not folder.exists():
            folder = project_folder() / folder
    unpacked = _unpacked(folder, data, progress)
    tracks = find_tracks(unpacked)
    if name == "synthetic":
        tracks["collection"] = "synthetic"
        _warn(SYNTHETIC_WARNING)
    elif tracks["collection"].iloc[0] != "gtzan":
        _warn_about_folder(tracks)
    elif unpacked != folder:
        _verify_once(tracks, unpacked)
    return tracks


def describe_collection(tracks: pd.DataFrame) -> str:
    """The size of a collection in one line; of a user's own, also of each genre.

    Parameters
    ----------
    tracks
        The table that `load_collection` or `find_tracks` returns.

    Examples
    --------
    >>> import pandas as pd
    >>> tracks = pd.DataFrame({"genre": ["jazz", "rock"], "artist_id": ["Miles", None],
    ...                        "path": ["/a.mp3", None], "image": None, "collection": "mine"})
    >>> print(describe_collection(tracks))
    mine: 2 tracks of 2 genres, 1 with sound, 0 with an image.
           songs  artists  without artist
    genre
    jazz       1        1               0
    rock       1        0               1
    """
    by_genre = one_row_per_genre(tracks).groupby("genre")
    collection = tracks["collection"].iloc[0]
    line = (
        f"{collection}: {len(tracks)} tracks of {by_genre.ngroups} genres, "
        f"{tracks['path'].notna().sum()} with sound, {tracks['image'].notna().sum()} with an image."
    )
    if collection in ("gtzan", "synthetic"):
        return line
    artists = by_genre["artist_id"]
    columns = {
        "songs": by_genre.size(),
        "artists": artists.nunique(),
        "without artist": by_genre.size() - artists.count(),
    }
    table = pd.DataFrame(columns)
    lines = (one.rstrip() for one in table.to_string().splitlines())
    return "\n".join([line, *lines])


def _warn(message: str) -> None:
    warnings.warn(message, CollectionWarning, stacklevel=4)


def _warn_about_folder(tracks: pd.DataFrame) -> None:
    """Warn about what a user should check before training on a folder of their own."""
    skipped = tracks.attrs["skipped"]
    if skipped:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(skipped.items()))
        _warn(f"Files skipped, because they are not sound or are in no genre's folder: {kinds}.")
    sizes = one_row_per_genre(tracks).groupby("genre").size()
    if len(sizes) == 1:
        _warn(
            f"All songs are in one folder, {sizes.index[0]!r}, so there is one genre. If the "
            "folders in it are the genres, name that folder instead of the one above it."
        )
    elif sizes.min() < FEW_SONGS:
        few = listed(f"{genre} ({n})" for genre, n in sizes[sizes < FEW_SONGS].items())
        _warn(
            f"Fewer than {FEW_SONGS} songs of {few}: too few to train a network on these genres, "
            "and to measure its accuracy."
        )


def _verify_once(tracks: pd.DataFrame, folder: Path) -> None:
    """Compare the clips of an unpacked GTZAN with their md5 sums, the first time it is loaded."""
    if (folder / VERIFIED).exists():
        return
    problems = verify_gtzan(tracks).groupby("problem")["track_id"].agg(list)
    changed, missing = problems.get("changed", []), problems.get("missing", [])
    if len(missing) > len(tracks):  # a part of GTZAN on purpose, such as gtzan-mini
        missing = []
    found = [
        f"{len(ids)} {kind} ({', '.join(ids[:3])}{', …' if len(ids) > 3 else ''})"
        for kind, ids in (("clips are missing", missing), ("clips have other content", changed))
        if ids
    ]
    if "jazz.00054" in changed:
        found.append("a common copy has a damaged jazz.00054.wav")
    if found:
        _warn(
            f"This copy of GTZAN differs from the published one: {'; '.join(found)}. Download "
            "another copy, or leave these clips out."
        )
    with suppress(OSError):  # a folder that only another user may change
        (folder / VERIFIED).touch()


def _has_media(folder: Path) -> bool:
    """Whether a folder holds sound or images, or an archive that might."""
    if not folder.is_dir():
        return False
    names = (name for _, names in _genre_folders(folder) for name in names)
    wanted = AUDIO_SUFFIXES | {".png"}
    return any(Path(n).suffix.lower() in wanted for n in names) or bool(_archives(folder))


def _archives(folder: Path) -> list[Path]:
    try:
        return [file for file in sorted(folder.iterdir()) if is_archive(file)]
    except OSError:  # a folder that may not be listed
        return []


def _unpacked(path: Path, data: Path, progress: bool) -> Path:
    """The folder of files of `path`; an archive, or the one in a folder of its own, is unpacked.

    Raw data is never changed: an archive stays where it is and is unpacked below `data`, or below
    the folder named by the environment variable `MELGENRE_UNPACKED`.
    """
    if is_url(path):
        return path
    archive = path
    if path.is_dir() and next(_genre_folders(path), None) is None:
        archive = next(iter(_archives(path)), path)
    if not is_archive(archive):
        return path
    name = f"{archive.name.partition('.')[0][:200]}-{path_hash(archive.resolve())}"
    parent = Path(os.environ.get("MELGENRE_UNPACKED", data / "unpacked"))
    return unpack(archive, parent / name, progress=progress)


def _genre_folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folders below `folder`, each with the sorted names of its files; links are followed."""
    return ((root, names) for root, names in walk(folder) if root != folder)
