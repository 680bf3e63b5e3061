"""A folder of songs -> a table and a CSV: in parallel, resumable; an unreadable song is one row."""

import csv
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from ..data.audio import AUDIO_SUFFIXES, AudioError
from ..errors import MelgenreError
from ..files import atomic_write, locked, sweep, walk
from ..text import escape_control, path_text, printable, spreadsheet_plain, spreadsheet_safe
from .model_folder import ModelError

LAST_COLUMNS = ["ood_score", "error", "modified", "model"]


class NoSongsError(MelgenreError, FileNotFoundError):
    """A folder without recordings."""


class TableError(MelgenreError, ValueError):
    """A CSV that is not a table of genres."""


def find_audio_files(folder):
    """The files of sound below a folder, sorted; links are followed, but never round in circles.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    list of Path

    Raises
    ------
    NoSongsError
        If there is no such folder, or no sound in it.
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


def classify_folder(classifier, folder, file=None, *, progress=True):
    """The genre of every song of a folder.

    Songs are classified side by side, one on each core. Each answer is written to the CSV at once,
    so an interrupted run resumes; a song that has changed since is classified again. A CSV of
    another model is started anew.

    Parameters
    ----------
    classifier : melgenre.inference.classifier.GenreClassifier
    folder : str or Path
        Or a list of files.
    file : str or Path
        The CSV; None: no file is written.
    progress : bool
        Show a progress bar.

    Returns
    -------
    pd.DataFrame
        A row a song: `song` (below the folder), `genre` (or "unsure"; empty if it cannot be used),
        `p_<genre>`, `ood_score`, `error` (the sentence that says why), `modified` (time and size
        of the file), `model` (the fingerprint of the model).

    Raises
    ------
    NoSongsError
        If there is no sound.
    TableError
        If the file exists and is no such table.
    OSError
        If the file cannot be written.
    """
    listed = isinstance(folder, (list, tuple))
    songs = [Path(song) for song in folder] if listed else find_audio_files(folder)
    names = [path_text(song if listed else song.relative_to(folder)) for song in songs]
    columns = ["song", "genre", *(f"p_{genre}" for genre in classifier.genres), *LAST_COLUMNS]
    with nullcontext() if file is None else locked(file):
        rows = {} if file is None else _known(Path(file), columns, classifier.fingerprint)
        todo = {
            name: song
            for name, song in zip(names, songs, strict=True)
            if rows.get(name, {}).get("modified") != _modified(song)
        }
        rows = {name: row for name, row in rows.items() if name not in todo}
        new = _classify_all(classifier, todo)
        bar = tqdm(new, total=len(todo), desc="songs", unit=" songs", disable=not progress)
        if file is None:
            rows.update((row["song"], row) for row in bar)
        else:
            try:
                rows = _write(Path(file), columns, rows, bar, names)
            except OSError as error:  # the recordings' own errors are in their rows
                raise OSError(
                    f"{printable(file)} cannot be written ({error.strerror}). Make room or choose "
                    "another file, and run this again: it resumes."
                ) from error
    result = pd.DataFrame([rows[name] for name in names], columns=columns)
    numbers = [column for column in columns if column.startswith("p_")] + ["ood_score"]
    result[numbers] = result[numbers].apply(pd.to_numeric)
    return result.fillna({"genre": "", "error": ""})


def _write(file, columns, rows, new, names):
    """Append each new row to the CSV when it comes; at the end, bring all into the songs' order."""
    sweep(file.parent)
    _write_whole(file, columns, rows.values())  # without what a killed run left of its last line
    with file.open("a", newline="", encoding="utf-8") as opened:
        table = csv.DictWriter(opened, columns)
        for row in new:
            table.writerow(_safe(row))
            opened.flush()
            rows[row["song"]] = row
    listed = dict.fromkeys(names)
    others = [row for name, row in rows.items() if name not in listed]
    _write_whole(file, columns, [*others, *(rows[name] for name in listed)])
    return rows


def _write_whole(file, columns, rows):
    with atomic_write(file) as part, part.open("w", newline="", encoding="utf-8") as opened:
        table = csv.DictWriter(opened, columns)
        table.writeheader()
        for row in rows:
            table.writerow(_safe(row))


def _safe(row):
    return {name: spreadsheet_safe(cell) for name, cell in row.items()}


def _known(file, columns, model):
    """Rows that this model wrote into a CSV earlier, by song."""
    if not file.exists():
        return {}
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            table = csv.DictReader(opened)
            # Before there were fingerprints, the columns ended one earlier.
            if (
                table.fieldnames is None
                or table.fieldnames[:2] != columns[:2]
                or not (
                    table.fieldnames[-len(LAST_COLUMNS) :] == LAST_COLUMNS
                    or table.fieldnames[-len(LAST_COLUMNS) + 1 :] == LAST_COLUMNS[:-1]
                )
            ):
                raise ValueError("it has other columns")
            rows = [{name: spreadsheet_plain(cell) for name, cell in row.items()} for row in table]
            found = table.fieldnames
    except (ValueError, csv.Error) as error:
        raise TableError(
            f"{printable(file.name)} is not a table of genres ({error}). Name another file."
        ) from error
    # A killed run may have left a part of a line at the end.
    whole = [row for row in rows if None not in row.values() and None not in row]
    if found != columns or any(row["model"] != model for row in whole):
        print(f"{printable(file.name)} was written with another model and is started anew.")
        return {}
    return {row["song"]: row for row in whole}


def _modified(song):
    """When the file was changed last, and its size, as text; empty if it is gone."""
    try:
        status = song.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_mtime_ns}-{status.st_size}"


def _classify_all(classifier, songs):
    """A row for each song, in their order; each has a core to itself, and one alone has all."""
    if len(songs) > 1:
        classifier = classifier.on_one_core()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda one: _classify(classifier, *one), songs.items())


def _classify(classifier, name, song):
    """The row of one song: its genre, or the sentence that says why there is none."""
    row = {"song": name, "error": "", "modified": _modified(song), "model": classifier.fingerprint}
    try:
        answer = classifier.predict(song)
    except AudioError as error:
        return row | {"error": f"{escape_control(name)}: {error.reason}"}
    except ModelError:
        raise
    except Exception as error:  # one recording never ends a folder
        reason = (
            f"cannot be classified ({type(error).__name__}). Convert it to wav, or leave it out."
        )
        return row | {"error": f"{escape_control(name)}: {reason}"}
    row |= {"genre": answer.genre, "ood_score": round(answer.ood_score, 3)}
    return row | {f"p_{genre}": round(p, 4) for genre, p in answer.items()}
