"""A folder, an archive or a download -> the table of tracks.

Any folder of `<genre>/<song>` or `<genre>/<artist>/<album>/<song>` is a collection: GTZAN as its
archives unpack (`genres/…`, `Data/genres_original/…`), images made earlier, or a user's music.
"""

import codecs
import hashlib
import io
import itertools
import os
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pandas as pd

from ..errors import MelgenreError
from ..files import project_folder, walk
from ..text import printable, short
from .archives import is_archive, unpack
from .audio import AUDIO_SUFFIXES
from .download import download
from .gtzan import gtzan_metadata
from .mel_settings import ImageError, check_image
from .synthetic.collection import make_synthetic_collection

DOWNLOADS = {
    "gtzan": "https://huggingface.co/datasets/marsyas/gtzan/resolve/main/data/genres.tar.gz",
    "gtzan-mini": "https://github.com/TempoBeatDownbeat/gtzan_mini/archive/refs/heads/main.zip",
}
"""GTZAN whole (1.2 GB, 1000 clips), and 100 of its clips to start with."""

SYNTHETIC_CLIPS = 6  # a genre: enough to see everything run, in minutes and without a GPU
SYNTHETIC_WARNING = (
    "SYNTHETIC MUSIC: made up by melgenre because no collection was found. Everything runs, but "
    "no accuracy from it says anything about real music. Put GTZAN into data/gtzan, or set "
    'COLLECTION to "gtzan-mini" or "gtzan" to download it.'
)


WRAPPERS = frozenset(
    ("audio", "data", "genres", "genres_original", "images", "images_original", "mels", "music")
    + ("pictures", "songs", "wav", "wavs")
)
"""Names of folders above those of the genres, in lower case."""

OWN_FILES = ("tracks.csv", "SYNTHETIC.md", "mel_settings.json", "sources.json")
"""Files of a collection that are no tracks, and are no surprise."""

RESERVED = ("genre", "path", "image", "predicted", "collection")
"""Columns that a `tracks.csv` cannot add; nor can it add probabilities, `p_<genre>`."""

LARGEST_TABLE = 100_000_000
"""In bytes, of a `tracks.csv`: a million tracks."""

FEW_SONGS = 10
"""A genre of fewer songs gets a warning: hardly one of them is left to be judged by."""


class CollectionError(MelgenreError, ValueError):
    """A folder or name that is no collection; the message says what was expected."""


def load_collection(name="auto", *, data=None, progress=True):
    """Find, download or make a collection, and say in a line which it is.

    Parameters
    ----------
    name : str or Path
        `"gtzan"` or `"gtzan-mini"`: from `data`, downloaded first where it is not there yet.
        `"synthetic"`: made up here. A folder or an archive: that one. `"auto"`: the folder named
        by the environment variable `MELGENRE_DATA`, else what lies in `data/gtzan` or
        `data/gtzan-mini`, else synthetic.
    data : str or Path
        Folder for collections; the repository's `data` if None.
    progress : bool
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
        If a download fails.
    """
    data = project_folder() / "data" if data is None else Path(data)
    name = str(name)
    if name == "auto":
        available = (str(data / known) for known in DOWNLOADS if _has_media(data / known))
        name = os.environ.get("MELGENRE_DATA") or next(available, "synthetic")
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
        folder = Path(name)
        if not folder.is_absolute() and not folder.exists():
            folder = project_folder() / folder
    tracks = find_tracks(_unpacked(folder, data))
    if name == "synthetic":
        tracks["collection"] = "synthetic"
        print(SYNTHETIC_WARNING)
    collection = tracks["collection"].iloc[0]
    with_sound = tracks["path"].notna().sum()
    print(
        f"{collection}: {len(tracks)} tracks of {tracks['genre'].nunique()} "
        f"genres, {with_sound} with sound, {tracks['image'].notna().sum()} with an image."
    )
    if collection != "gtzan" and name != "synthetic":
        print(describe_collection(tracks).to_string())
        _describe_problems(tracks)
    return tracks


def describe_collection(tracks):
    """What a folder was understood to be: songs and artists of each genre.

    Parameters
    ----------
    tracks : pd.DataFrame
        Of `find_tracks`.

    Returns
    -------
    pd.DataFrame
        A row a genre: `songs`, `artists`, and `without artist`, the songs of nobody known.
    """
    by_genre = tracks.groupby("genre")
    return pd.DataFrame({
        "songs": by_genre.size(),
        "artists": by_genre["artist_id"].nunique(),
        "without artist": by_genre["artist_id"].agg(lambda artists: artists.isna().sum()),
    })  # fmt: skip


def _describe_problems(tracks):
    """Print what a person should look at before anything is trained on their folder."""
    skipped = tracks.attrs["skipped"]
    if skipped:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(skipped.items()))
        print(f"Skipped, because they are no sound or lie in no genre's folder: {kinds}.")
    sizes = tracks.groupby("genre").size()
    if len(sizes) == 1:
        print(
            f"WARNING: all songs lie in one folder, {sizes.index[0]!r}, so there is one genre. If "
            "the folders in it are the genres, name that folder in place of the one above it."
        )
    elif sizes.min() < FEW_SONGS:
        few = ", ".join(f"{genre} ({n})" for genre, n in sizes[sizes < FEW_SONGS].items())
        print(
            f"WARNING: fewer than {FEW_SONGS} songs of {few}. A network hardly learns a genre from "
            "so few, and its figure says little."
        )


def find_tracks(folder):
    """The table of tracks of a folder.

    Sound and images made earlier are found at any depth. The first folder below `folder` is the
    genre, but for the usual names in `WRAPPERS`; of songs that lie deeper, the second is the artist
    and the third the album. A `tracks.csv` in the folder adds what it knows by `track_id`, such as
    `artist_id`. What is known of GTZAN's tracks is added to those.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    pd.DataFrame
        A row a track, sorted: `track_id` (the file below the collection, without its ending),
        `genre`, `artist_id`, `path`, `image` (each of the last three missing where there is
        none), `collection`; `album` where folders name them; and for GTZAN `artist_fold`,
        `fault_filtered_split`, `md5_wav`. `attrs["skipped"]` counts the files that are no tracks
        by their ending.

    Raises
    ------
    CollectionError
        If the folder is missing or holds no `<genre>/<song>`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CollectionError(
            f"No folder {folder.name!r}. Name a folder of <genre>/<song> files, or an "
            "archive of one."
        )
    sounds, images, folders, skipped = _files_by_track(folder)
    if not sounds and not images:
        raise CollectionError(
            f"No music in {folder.name!r}. A collection is a folder with one folder for each genre "
            f"and the songs in these, as in {folder.name}/jazz/song.mp3."
        )
    rows = [
        {"track_id": track, "genre": genre, "path": sounds.get((genre, track)),
         "image": images.get((genre, track)), **folders.get((genre, track), {})}
        for genre, track in sorted(sounds.keys() | images.keys())
    ]  # fmt: skip
    tracks = pd.DataFrame(rows, dtype=object)
    is_gtzan = tracks["track_id"].isin(gtzan_metadata()["track_id"]).mean() > 0.5
    facts = gtzan_metadata() if is_gtzan else _user_metadata(folder)
    by_folder = tracks.pop("artist_id") if "artist_id" in tracks else None
    new = [column for column in facts if column == "track_id" or column not in ("genre", *tracks)]
    tracks = tracks.merge(facts[new], on="track_id", how="left")
    if by_folder is not None:
        written = tracks.get("artist_id", by_folder)
        tracks["artist_id"] = written.where(written.notna(), by_folder)
    tracks["collection"] = "gtzan" if is_gtzan else _unique_name(folder)
    first = ["track_id", "genre", "artist_id", "path", "image", "collection"]
    tracks = tracks.reindex(columns=first + [c for c in tracks if c not in first])
    tracks.attrs["skipped"] = skipped
    return tracks


def _user_metadata(folder):
    """What a `tracks.csv` in the folder knows of its tracks; nothing where there is none."""
    name = f"{printable(folder.name)}/tracks.csv"
    try:
        with (folder / "tracks.csv").open("rb") as file:
            content = file.read(LARGEST_TABLE + 1)
    except FileNotFoundError:
        return pd.DataFrame({"track_id": [], "artist_id": []}, dtype=str)
    except OSError as error:
        raise CollectionError(f"{name} cannot be read ({error.strerror}).") from error
    try:
        facts = _read_table(content)
    except Exception as error:  # pandas has errors of many kinds for what is no table
        raise CollectionError(
            f"{name} is no table ({short(error)}). Save it as CSV, in UTF-8, or move it away."
        ) from error
    facts = facts.dropna(subset="track_id") if "track_id" in facts else facts
    if "track_id" not in facts or facts["track_id"].duplicated().any():
        raise CollectionError(
            f"{name} needs a column track_id that names each track once, as in jazz/song for "
            "jazz/song.mp3."
        )
    return facts[[column for column in facts if not _is_reserved(column)]]


def _is_reserved(column):
    """Whether a column of a `tracks.csv` has the name of one that a later step adds."""
    return column in RESERVED or column.startswith("p_")


def _read_table(content):
    """The table in the bytes of a CSV file, with the encodings and separators of spreadsheets."""
    if len(content) > LARGEST_TABLE:
        raise ValueError(f"it is larger than {LARGEST_TABLE / 1e6:.0f} MB")
    text = _decoded(content)
    if "\0" in text:
        raise ValueError("it holds bytes that are no text")
    header = text.lstrip().partition("\n")[0]
    with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # overlong rows
        facts = pd.read_csv(
            io.StringIO(text), sep=max(",;\t", key=header.count), index_col=False,
            dtype={"track_id": str, "artist_id": str}, keep_default_na=False, na_values=[""],
            skipinitialspace=True, low_memory=False,
        )  # fmt: skip
    return facts.rename(columns=lambda column: str(column).strip())


def _decoded(content):
    """Text in UTF-8 or UTF-16, or else as Windows writes it in western Europe."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    for encoding in ("utf-8-sig", "cp1252"):
        with suppress(UnicodeDecodeError):
            return content.decode(encoding)
    return content.decode("latin-1")


def _unique_name(folder):
    """The folder's name if it lies in the project's `data`, where there is one of each name; else
    with a mark."""
    whole = folder.resolve()
    name = whole.name
    if (folder / "SYNTHETIC.md").exists() and not name.startswith("synthetic"):
        name = f"synthetic-{name}"  # a model that learned from it must be known by it
    data = project_folder().resolve() / "data"
    return name if whole.parent in (data, data / "unpacked") else f"{name}-{_mark(whole)}"


def _mark(path):
    """Six characters that tell a path from others of its name."""
    return hashlib.md5(bytes(path)).hexdigest()[:6]


def _has_media(folder):
    """Whether a folder holds sound or images, or an archive that might."""
    if not folder.is_dir():
        return False
    names = (name for _, names in _genre_folders(folder) for name in names)
    wanted = AUDIO_SUFFIXES | {".png"}
    return any(Path(n).suffix.lower() in wanted for n in names) or bool(_archives(folder))


def _archives(folder):
    try:
        return [file for file in sorted(folder.iterdir()) if is_archive(file)]
    except OSError:  # a folder that may not be listed
        return []


def _unpacked(path, data):
    """A folder of files for `path`: an archive is unpacked, also one that lies in a folder alone.

    Raw data is never changed: an archive stays where it is and is unpacked below `data`, or below
    the folder named by the environment variable `MELGENRE_UNPACKED`.
    """
    if path.is_dir() and next(_genre_folders(path), None) is None:
        path = next(iter(_archives(path)), path)
    if is_archive(path):
        name = f"{path.name.partition('.')[0][:200]}-{_mark(path.resolve())}"
        return unpack(path, Path(os.environ.get("MELGENRE_UNPACKED", data / "unpacked"), name))
    return path


def _files_by_track(folder):
    """The files below a folder by (genre, track_id): paths of sounds and of images, artist and
    album by the folders of the sounds; and a count by ending of the files that are neither."""
    sounds, images, folders = {}, {}, {}
    skipped, foreign = Counter(), []
    for place, names in walk(folder):
        for name in names:
            stem, suffix = os.path.splitext(name)
            path, suffix = place / name, suffix.lower()
            # A name becomes part of tables, models and messages: as text that can be printed.
            parts = tuple(map(printable, place.relative_to(folder).parts))
            genre, track, below = _genre_of(parts, printable(stem))
            if genre is None or suffix not in AUDIO_SUFFIXES | {".png"}:
                skipped[printable(suffix) or "without ending"] += name not in OWN_FILES
                continue
            if suffix == ".png":
                try:
                    check_image(path)
                    images[genre, track] = str(path)
                except ImageError as error:
                    foreign.append(error)
            else:
                track = _unique_id(genre, track, sounds)
                sounds[genre, track] = str(path)
            folders[genre, track] = dict(zip(("artist_id", "album"), below, strict=False))
    if foreign and not sounds and not images:
        raise CollectionError(f"{len(foreign)} images cannot be used, the first: {foreign[0]}")
    if foreign:
        warnings.warn(
            f"{len(foreign)} images are left aside, the first: {foreign[0]}", stacklevel=3
        )
    return sounds, images, folders, dict(+skipped)


def _genre_of(folders, stem):
    """Genre, track_id and the folders between them of a file; a genre of None where it has none."""
    if folders and stem.startswith(f"{folders[-1]}."):  # as GTZAN names its clips, at any depth
        return folders[-1], stem, ()
    while folders and folders[0].lower() in WRAPPERS:
        folders = folders[1:]
    if not folders:
        return None, stem, ()
    return folders[0], "/".join([*folders, stem]), folders[1:]


def _unique_id(genre, track, taken):
    """`track`, or `track (2)`, … where songs of one name lie in two formats or two folders."""
    names = itertools.chain([track], (f"{track} ({n})" for n in itertools.count(2)))
    return next(name for name in names if (genre, name) not in taken)


def _genre_folders(folder):
    """Pairs of a folder below `folder` and the sorted names of its files; links are followed."""
    return ((root, names) for root, names in walk(folder) if root != folder)
