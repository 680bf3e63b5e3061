"""A folder of songs -> a table and a CSV: in parallel, resumable; an unreadable song is one row."""

import csv
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from .audio import AUDIO_SUFFIXES, AudioError
from .files import atomic_write, path_text, printable, walk


def find_songs(folder):
    """The files of sound below a folder, sorted; links are followed, but never round in circles.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    list of Path

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or no sound in it.
    """
    songs = [
        root / name
        for root, names in walk(folder)
        for name in names
        if Path(name).suffix.lower() in AUDIO_SUFFIXES
    ]
    if not songs:
        raise FileNotFoundError(
            f"{printable(folder)}: no sound in this folder. It should hold files such as song.mp3 "
            "or song.wav."
        )
    return songs


def classify_folder(classifier, folder, file=None, *, progress=True):
    """The genre of every song of a folder.

    Songs are judged side by side, one on each core. Each answer is written to the CSV at
    once, so a run that was broken off goes on where it stopped; a song that has changed since is
    asked about again.

    Parameters
    ----------
    classifier : melgenre.classifier.GenreClassifier
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
        `p_<genre>`, `strangeness`, `error` (the sentence that says why), `modified`.

    Raises
    ------
    FileNotFoundError
        If there is no sound.
    """
    listed = isinstance(folder, (list, tuple))
    songs = [Path(song) for song in folder] if listed else find_songs(folder)
    names = [path_text(song if listed else song.relative_to(folder)) for song in songs]
    columns = ["song", "genre", *(f"p_{genre}" for genre in classifier.genres)]
    columns += ["strangeness", "error", "modified"]
    known = _known(file, columns)
    todo = [
        (name, song)
        for name, song in zip(names, songs, strict=True)
        if known.get(name, {}).get("modified") != _modified(song)
    ]
    known = {name: row for name, row in known.items() if name not in dict(todo)}
    rows = _ask(classifier, todo)
    bar = tqdm(rows, total=len(todo), desc="songs", unit=" songs", disable=not progress)
    if file is None:
        known.update((row["song"], row) for row in bar)
    else:
        # Written anew first: a run that was killed may have left half a line at the end.
        with atomic_write(file) as whole, whole.open("w", newline="", encoding="utf-8") as opened:
            table = csv.DictWriter(opened, columns)
            table.writeheader()
            table.writerows(known.values())
        with Path(file).open("a", newline="", encoding="utf-8") as opened:
            table = csv.DictWriter(opened, columns)
            for row in bar:
                table.writerow(row)
                opened.flush()
                known[row["song"]] = row
    result = pd.DataFrame([known[name] for name in names if name in known], columns=columns)
    numbers = [column for column in columns if column.startswith("p_")] + ["strangeness"]
    result[numbers] = result[numbers].apply(pd.to_numeric)
    return result.fillna({"genre": "", "error": ""})


def _known(file, columns):
    """Rows of a CSV written earlier, by song; of a song asked about twice, the last."""
    if file is None or not Path(file).exists():
        return {}
    with Path(file).open(newline="", encoding="utf-8") as opened:
        table = csv.DictReader(opened)
        if table.fieldnames != columns:
            raise ValueError(
                f"{Path(file).name} is no table of this model's answers. Name another file."
            )
        return {row["song"]: row for row in table if row["modified"]}  # but half a line


def _modified(song):
    """When the file was changed last, as text; empty if it is gone."""
    try:
        return str(song.stat().st_mtime_ns)
    except OSError:
        return ""


def _ask(classifier, todo):
    """A row for each song, in their order; each has a core to itself, and one alone has all."""
    if len(todo) > 1:
        classifier = classifier.on_one_core()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda one: _answer(classifier, *one), todo)


def _answer(classifier, name, song):
    """The row of one song: its genre, or the sentence that says why there is none."""
    row = {"song": name, "error": "", "modified": _modified(song)}
    try:
        answer = classifier.predict(song)
    except AudioError as error:
        return row | {"error": f"{name}: {error.reason}"}
    row |= {"genre": answer.genre, "strangeness": round(answer.strangeness, 3)}
    return row | {f"p_{genre}": round(p, 4) for genre, p in answer.items()}
