"""Classify a folder of songs into a table and a CSV: in parallel, and resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.audio import AudioError
from ..data.table import SEPARATOR, probability_columns
from ..errors import MelgenreError, extra_packages
from ..parallel import parallel_map
from ..paths import FoundFile, StoreError, as_path
from ..shard import Shard
from ..text import escape_control, printable
from .classifier import GenreClassifier
from .model_folder import ModelError
from .prediction import UNSURE
from .song_table import song_table
from .songs import Folder, list_songs

if TYPE_CHECKING:
    import pandas as pd
    from upath import UPath

FIRST_COLUMNS, LAST_COLUMNS = ["song", "genre"], ["ood_score", "error", "modified", "model"]


def classify_folder(
    classifier: GenreClassifier,
    folder: Folder,
    file: str | Path | UPath | None = None,
    *,
    shard: Shard | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Predict the genre of every song in a folder.

    Songs are classified in parallel, one per core, or on the cluster of `joblib.parallel_config`.
    Each row is written to the CSV as soon as it is there, so an interrupted run resumes where it
    stopped; a song whose file has changed is classified again. A CSV of another model is started
    anew, with a warning.

    Parameters
    ----------
    folder
        A path, a URL such as `s3://bucket/music`, or a list of files.
    file
        The CSV, by path or URL; by default, no file is written.
    shard
        Only this share of the songs.
    progress
        Show a progress bar.

    Returns
    -------
    One row per song: `song` (its path below the folder), `genre` (several as in "rock; punk"; or
    "unsure"; empty if the song cannot be used), `p_<genre>`, `ood_score`, `error` (why the song
    cannot be used, or empty), `modified` (time and size of the file), `model` (the fingerprint of
    the model).

    Raises
    ------
    NoSongsError
        If the folder has no audio file.
    TableError
        If the CSV exists and is not such a table.
    OSError
        If the CSV cannot be written.
    MissingPackageError
        If pandas is not installed; `predict_songs` works without it.
    """
    with extra_packages("train", "A table of songs"):
        import pandas as pd
    songs = list_songs(folder) if shard is None else shard.of(list_songs(folder))
    rows = list(predict_songs(classifier, songs, file, progress=progress))
    return pd.DataFrame(rows, columns=_columns(classifier))


def predict_songs(
    classifier: GenreClassifier,
    songs: Iterable[FoundFile],
    file: str | Path | UPath | None = None,
    *,
    progress: bool = True,
) -> Iterator[dict]:
    """The rows of `classify_folder`, as dicts: this needs no pandas, and memory stays flat.

    The other parameters and the errors are those of `classify_folder`.

    Parameters
    ----------
    songs
        Of `melgenre.inference.songs.list_songs`.

    Yields
    ------
    dict
        A row, after all songs are classified.
    """
    columns = _columns(classifier)
    try:
        with song_table(file, columns, classifier.fingerprint) as table:
            names, todo = {}, []
            for song in songs:
                names[song.name] = None
                if table.stamps.get(song.name) != song.stamp:
                    todo.append(song)
            table.stamps.clear()  # of a million songs, they take much memory
            new = map_songs(_classify, classifier, todo, progress=progress)
            for _, row in new:
                table.write(row)
            table.sort(names)
            for row in table.rows(names):
                yield _with_numbers(row, columns)
    except StoreError:
        raise
    except OSError as error:  # errors of the recordings are in their rows
        if file is None or isinstance(error, MelgenreError):
            raise
        raise cannot_write(file, error.strerror) from error


def _columns(classifier):
    return [*FIRST_COLUMNS, *probability_columns(classifier.genres), *LAST_COLUMNS]


def _with_numbers(row, columns):
    """A row, new or of a CSV, with numbers as floats; NaN where the song cannot be used."""
    texts = {*FIRST_COLUMNS, *LAST_COLUMNS} - {"ood_score"}
    cells = {name: row.get(name, "") for name in columns}
    return {
        name: cell if name in texts else float("nan" if cell == "" else cell)
        for name, cell in cells.items()
    }


def reason_of(error: Exception, name: str) -> str:
    """Why a song cannot be used, as a sentence; an error that is not the song's is raised again.

    Whatever a decoder raises, one file must not stop a long run.
    """
    if isinstance(error, (ModelError, StoreError)):
        raise error
    if isinstance(error, AudioError):
        return f"{escape_control(name)}: {error.reason}"
    return (
        f"{escape_control(name)}: cannot be used ({type(error).__name__}). Convert it to wav, or "
        "leave it out."
    )


def cannot_write(file: str | Path, reason: str) -> OSError:
    """The error of a run that resumes, for a file that it cannot write."""
    return OSError(
        f"{printable(file)} cannot be written ({reason}). Make room or choose another file, and "
        "run this again: it resumes."
    )


def map_songs(
    function: Callable, classifier: GenreClassifier, songs: Sequence[FoundFile], *, progress: bool
) -> Iterator:
    """Call `function(classifier, song)` for each song; yields index and result, as they finish.

    One thread per song, or all threads for one song. On a cluster, each worker loads the model
    once.
    """
    if len(songs) > 1:
        classifier = classifier.on_one_core()
    return parallel_map(
        function,
        ((classifier, song) for song in songs),
        total=len(songs),
        desc="songs",
        unit=" songs",
        progress=progress,
        threads=True,
    )


def _classify(classifier, song):
    """The row of one song: its genre, or the reason why there is none."""
    row = {"song": song.name, "error": "", "modified": song.stamp, "model": classifier.fingerprint}
    try:
        prediction = classifier.predict(as_path(song.path))
    except Exception as error:  # decoders raise errors of any kind
        return row | {"error": reason_of(error, song.name)}
    genre = SEPARATOR.join(prediction.genres) or UNSURE
    row |= {"genre": genre, "ood_score": round(prediction.ood_score, 3)}
    probabilities = (round(p, 4) for p in prediction.values())
    return row | dict(zip(probability_columns(prediction), probabilities, strict=True))
