"""A folder of songs -> a table and a CSV: in parallel, resumable, broken files told, not fatal."""

import csv
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .audio import AUDIO_SUFFIXES, AudioError
from .classifier import BATCH
from .files import replacing, walk

# The network needs the cores more than the decoders do.
WORKERS = max(1, (os.cpu_count() or 1) // 2)


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
            f"No sound in {Path(folder).name!r}. It should hold files such as song.mp3 or song.wav."
        )
    return songs


def classify_folder(classifier, folder, file=None, *, progress=True):
    """The genre of every song of a folder.

    Files are decoded in parallel while the network works. Each answer is written to the CSV at
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
    names = [str(song if listed else song.relative_to(folder)) for song in songs]
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
        with replacing(file) as whole, whole.open("w", newline="", encoding="utf-8") as opened:
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
    return str(song.stat().st_mtime_ns) if song.exists() else ""


def _ask(classifier, todo):
    """A row for each song, in their order; pictures of several songs share a batch."""
    waiting = []
    for decoded in _decode_ahead(classifier, todo):
        waiting.append(decoded)
        if sum(len(pictures) for _, _, pictures, _ in waiting) >= BATCH:
            yield from _conclude(classifier, waiting)
            waiting = []
    yield from _conclude(classifier, waiting)


def _decode_ahead(classifier, todo):
    """Each song with its pictures; a few songs are decoded ahead while the network works."""
    with ThreadPoolExecutor(WORKERS) as pool:
        pending = deque()
        for name, song in todo:
            pending.append((name, song, pool.submit(_decode, classifier, song)))
            if len(pending) > 2 * WORKERS:
                name, song, decoded = pending.popleft()
                yield name, song, *decoded.result()
        for name, song, decoded in pending:
            yield name, song, *decoded.result()


def _decode(classifier, song):
    """A song's pictures, or none and the sentence that says why."""
    try:
        return [picture for _, _, picture in classifier.pictures(song)], ""
    except (AudioError, OSError) as error:
        return [], str(error)


def _conclude(classifier, waiting):
    pictures = [picture for _, _, some, _ in waiting for picture in some]
    judged = [
        classifier.judge_pictures(pictures[start : start + BATCH])
        for start in range(0, len(pictures), BATCH)
    ]
    if judged:
        probabilities, strangeness = (np.concatenate(part) for part in zip(*judged, strict=True))
    done = 0
    for name, song, some, error in waiting:
        row = {"song": name, "error": error, "modified": _modified(song)}
        if some:
            ours = slice(done, done := done + len(some))
            answer = classifier.conclude(probabilities[ours], strangeness[ours])
            row |= {"genre": answer.genre, "strangeness": round(answer.strangeness, 3)}
            row |= {f"p_{genre}": round(p, 4) for genre, p in answer.items()}
        yield row
