"""Classify a folder of songs into a table and a CSV: in parallel, and resumable."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from ..data.audio import AUDIO_SUFFIXES, AudioError
from ..data.table import SEPARATOR, probability_columns
from ..errors import MelgenreError, MelgenreWarning, extra_packages
from ..files import atomic_write, locked, sweep, walk
from ..text import escape_control, path_text, printable, spreadsheet_plain, spreadsheet_safe
from .classifier import GenreClassifier
from .model_folder import ModelError
from .prediction import UNSURE

if TYPE_CHECKING:
    import pandas as pd

FIRST_COLUMNS, LAST_COLUMNS = ["song", "genre"], ["ood_score", "error", "modified", "model"]
RENAMED_COLUMNS = {"strangeness": "ood_score"}
"""Columns of a CSV that an earlier version wrote, and their names today."""


class NoSongsError(MelgenreError, FileNotFoundError):
    """A folder without recordings."""


class TableError(MelgenreError, ValueError):
    """A CSV that is not a table of genres."""


def find_audio_files(folder: str | Path) -> list[Path]:
    """The audio files below a folder, sorted. Links are followed; loops of links are not.

    Raises
    ------
    NoSongsError
        If the folder does not exist, or has no audio file.
    """
    songs = [
        root / name
        for root, names in walk(folder)
        for name in names
        if Path(name).suffix.lower() in AUDIO_SUFFIXES
    ]
    if not songs:
        raise NoSongsError(
            f"{printable(folder)}: no sound in this folder. It should hold files such as song.mp3 "
            "or song.wav."
        )
    return songs


def named_songs(folder: str | Path | list[str | Path]) -> list[tuple[str, Path]]:
    """Name and path of each song of a folder, whose names are paths below it, or of a list."""
    if isinstance(folder, (list, tuple)):
        return [(path_text(song), song) for song in map(Path, folder)]
    return [(path_text(song.relative_to(folder)), song) for song in find_audio_files(folder)]


def classify_folder(
    classifier: GenreClassifier,
    folder: str | Path | list[str | Path],
    file: str | Path | None = None,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Predict the genre of every song in a folder.

    Songs are classified in parallel, one per core. Each row is written to the CSV at once, so an
    interrupted run resumes where it stopped; a song whose file has changed is classified again. A
    CSV of another model is started anew, with a warning.

    Parameters
    ----------
    folder
        Or a list of files.
    file
        The CSV; by default, no file is written.
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
    rows = predict_songs(classifier, folder, file, progress=progress)
    return pd.DataFrame(rows, columns=_columns(classifier))


def predict_songs(
    classifier: GenreClassifier,
    folder: str | Path | list[str | Path],
    file: str | Path | None = None,
    *,
    progress: bool = True,
) -> list[dict]:
    """The rows of `classify_folder`, as dicts: this needs no pandas.

    The parameters and errors are those of `classify_folder`.
    """
    songs = named_songs(folder)
    names = [name for name, _ in songs]
    columns = _columns(classifier)
    with nullcontext() if file is None else locked(file):
        rows = {} if file is None else _read(Path(file), columns, classifier.fingerprint)
        todo = {
            name: song
            for name, song in songs
            if rows.get(name, {}).get("modified") != modified(song)
        }
        rows = {name: row for name, row in rows.items() if name not in todo}
        new = map_songs(_classify, classifier, todo)
        bar = tqdm(new, total=len(todo), desc="songs", unit=" songs", disable=not progress)
        if file is None:
            rows.update((row["song"], row) for row in bar)
        else:
            try:
                _write(Path(file), columns, rows, bar, names)
            except OSError as error:  # errors of the recordings are in their rows
                raise cannot_write(file, error.strerror) from error
    return [_with_numbers(rows[name], columns) for name in names]


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


def _write(
    file: Path, columns: list[str], rows: dict[str, dict], new: Iterable[dict], names: list[str]
):
    """Append each new row to the CSV and to `rows`; at the end, sort the CSV as the songs are."""
    sweep(file.parent)
    _write_whole(file, columns, rows.values())  # without the partial last line of a killed run
    with file.open("a", newline="", encoding="utf-8") as opened:
        table = csv.DictWriter(opened, columns)
        for row in new:
            table.writerow(_safe(row))
            opened.flush()
            rows[row["song"]] = row
    listed = dict.fromkeys(names)
    others = [row for name, row in rows.items() if name not in listed]
    _write_whole(file, columns, [*others, *(rows[name] for name in listed)])


def _write_whole(file, columns, rows):
    with atomic_write(file) as part, part.open("w", newline="", encoding="utf-8") as opened:
        table = csv.DictWriter(opened, columns)
        table.writeheader()
        table.writerows(map(_safe, rows))


def _safe(row):
    return {name: spreadsheet_safe(cell) for name, cell in row.items()}


def _read(file: Path, columns: list[str], model: str) -> dict[str, dict]:
    """The rows of an existing CSV, by song; none if another model wrote it."""
    if not file.exists():
        return {}
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            table = csv.DictReader(opened)
            found = [RENAMED_COLUMNS.get(name, name) for name in table.fieldnames or ()]
            # The first versions wrote no column `model`.
            if found[:2] != FIRST_COLUMNS or not {*LAST_COLUMNS[:-1]} <= {*found}:
                raise ValueError("it has other columns")
            table.fieldnames = found
            rows = [{name: spreadsheet_plain(cell) for name, cell in row.items()} for row in table]
    except (ValueError, csv.Error) as error:
        raise TableError(
            f"{printable(file.name)} is not a table of genres ({error}). Name another file."
        ) from error
    # A killed run may have left a partial last line.
    whole = [row for row in rows if None not in row.values() and None not in row]
    if found != columns or any(row["model"] != model for row in whole):
        warnings.warn(
            f"{printable(file.name)} was written with another model and is started anew.",
            MelgenreWarning,
            stacklevel=4,  # the caller of `classify_folder`
        )
        return {}
    return {row["song"]: row for row in whole}


def modified(song):
    """Time and size of a file as text, which differ when it is changed; empty if it is gone."""
    try:
        status = song.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_mtime_ns}-{status.st_size}"


def reason_of(error: Exception, name: str) -> str:
    """Why a song cannot be used, as a sentence; an error that is not the song's is raised again.

    Whatever a decoder raises, one file must not stop a long run.
    """
    if isinstance(error, ModelError):
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


def map_songs(function: Callable, classifier: GenreClassifier, songs: dict[str, Path]) -> Iterator:
    """Call `function(classifier, name, song)` for each song; yields the results in their order.

    One thread per song, or all threads for one song.
    """
    if len(songs) > 1:
        classifier = classifier.on_one_core()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda item: function(classifier, *item), songs.items())


def _classify(classifier, name, song):
    """The row of one song: its genre, or the reason why there is none."""
    row = {"song": name, "error": "", "modified": modified(song), "model": classifier.fingerprint}
    try:
        prediction = classifier.predict(song)
    except Exception as error:  # decoders raise errors of any kind
        return row | {"error": reason_of(error, name)}
    genre = SEPARATOR.join(prediction.genres) or UNSURE
    row |= {"genre": genre, "ood_score": round(prediction.ood_score, 3)}
    probabilities = (round(p, 4) for p in prediction.values())
    return row | dict(zip(probability_columns(prediction), probabilities, strict=True))
