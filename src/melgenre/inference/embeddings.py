"""Embeddings of songs: of a folder, in parallel and resumable, and the nearest songs by cosine."""

from __future__ import annotations

import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..errors import MelgenreError, MelgenreWarning
from ..files import atomic_write, locked, sweep
from ..text import printable, short
from .batch import cannot_write, map_songs, modified, named_songs, reason_of
from .classifier import GenreClassifier

SECONDS_BETWEEN = 30
"""Between two writes of the file: a process that is killed loses no more of its work."""


class EmbeddingError(MelgenreError, ValueError):
    """Embeddings that are missing or cannot be read or compared."""


@dataclass
class Embeddings:
    """Embeddings of songs by one model.

    Attributes
    ----------
    songs
        Their names: paths below the folder.
    vectors : np.ndarray [shape=(n, d), dtype=float32]
        Of `GenreClassifier.embed`.
    modified
        Time and size of each file, which differ when it is changed.
    model
        The fingerprint of the model.
    errors
        Why other songs have no embedding, by their names; it is not saved.
    """

    songs: list[str]
    vectors: np.ndarray
    modified: list[str]
    model: str
    errors: dict[str, str] = field(default_factory=dict)

    def __repr__(self):
        return f"<Embeddings: {len(self.songs)} songs, {self.vectors.shape[1]} values each>"


def embed_folder(
    classifier: GenreClassifier,
    folder: str | Path | list[str | Path],
    file: str | Path | None = None,
    *,
    progress: bool = True,
) -> Embeddings:
    """Compute the embedding of every song in a folder.

    Songs are embedded in parallel, one per core. The file is written every half a minute and when
    the run is interrupted, so the next run resumes: only new and changed songs are computed, and
    those that could not be used before. Songs that are gone are removed from it. A file of another
    model is started anew, with a warning.

    Parameters
    ----------
    folder
        Or a list of files.
    file
        For `load_embeddings`; by default, no file is written.
    progress
        Show a progress bar.

    Raises
    ------
    NoSongsError
        If the folder has no audio file.
    EmbeddingError
        If the file exists and has no embeddings.
    ModelError
        If the model has no embeddings: see `GenreClassifier.embed`.
    OSError
        If the file cannot be written.
    """
    songs = dict(named_songs(folder))
    file = None if file is None else Path(file)
    with nullcontext() if file is None else locked(file):
        done = {} if file is None else _unchanged(file, classifier.fingerprint, songs)
        todo = {name: song for name, song in songs.items() if name not in done}
        errors, saved = {}, time.monotonic()
        bar = tqdm(total=len(todo), desc="songs", unit=" songs", disable=not progress)
        try:
            with bar:
                for name, row, error in map_songs(_embed, classifier, todo):
                    bar.update()
                    if error:
                        errors[name] = error
                    else:
                        done[name] = row
                    if file and time.monotonic() - saved > SECONDS_BETWEEN:
                        _save(file, _collect(classifier, songs, done, errors))
                        saved = time.monotonic()
        finally:  # also when the user interrupts it
            result = _collect(classifier, songs, done, errors)
            if file and done:
                _save(file, result)
    return result


def _unchanged(file: Path, model: str, songs: dict[str, Path]) -> dict[str, tuple[str, np.ndarray]]:
    """What a file has of songs that have not changed since: `modified` and vector, by name."""
    if not file.exists():
        if not file.parent.is_dir():
            raise cannot_write(file, "there is no such folder")
        return {}
    before = load_embeddings(file)
    if before.model != model:
        warnings.warn(
            f"{printable(file.name)} was written with another model and is started anew.",
            MelgenreWarning,
            stacklevel=3,
        )
        return {}
    rows = zip(before.songs, before.modified, before.vectors, strict=True)
    return {
        name: (when, vector)
        for name, when, vector in rows
        if name in songs and when == modified(songs[name])
    }


def _embed(classifier, name, song):
    """Name, row (`modified` and vector) and error of one song."""
    when = modified(song)  # before it is read: a change in between is found by the next run
    try:
        return name, (when, classifier.embed(song)), ""
    except Exception as error:  # decoders raise errors of any kind
        return name, None, reason_of(error, name)


def _collect(classifier, songs, done, errors):
    """The rows so far as `Embeddings`, in the order of the songs."""
    names = [name for name in songs if name in done]
    return Embeddings(
        songs=names,
        vectors=np.array([done[name][1] for name in names], dtype=np.float32).reshape(
            len(names), -1 if names else 0
        ),
        modified=[done[name][0] for name in names],
        model=classifier.fingerprint,
        errors=errors,
    )


def _save(file, embeddings):
    try:
        sweep(file.parent)
        with atomic_write(file) as part, part.open("wb") as opened:
            np.savez(
                opened,
                songs=np.array(embeddings.songs, dtype=str),
                vectors=embeddings.vectors,
                modified=np.array(embeddings.modified, dtype=str),
                model=np.array(embeddings.model),
            )
    except OSError as error:
        raise cannot_write(file, error.strerror) from error


def load_embeddings(file: str | Path) -> Embeddings:
    """Load the embeddings that `embed_folder` or `melgenre embed` wrote.

    The file is an archive of NumPy: `songs`, `vectors`, `modified` and `model`.

    Raises
    ------
    EmbeddingError
        If there is no such file, or it has no embeddings.
    """
    file = Path(file)
    if not file.exists():
        raise EmbeddingError(
            f"There is no file {printable(file)}. `melgenre embed FOLDER --out {printable(file)}` "
            "writes it."
        )
    try:
        with np.load(file, allow_pickle=False) as stored:
            names = ("songs", "vectors", "modified", "model")
            songs, vectors, times, model = (stored[name] for name in names)
        if not (len(songs) == len(vectors) == len(times) and vectors.ndim == 2):
            raise ValueError("its arrays do not belong together")
        if vectors.dtype != np.float32 or not np.isfinite(vectors).all():
            raise ValueError("its vectors are not numbers")
    except Exception as error:  # a damaged archive raises errors of any kind
        raise EmbeddingError(
            f"{printable(file.name)} has no embeddings of songs ({short(error)}). Name another "
            "file, or delete it and compute them again."
        ) from error
    return Embeddings(songs.tolist(), vectors, times.tolist(), str(model))


def nearest_songs(
    embeddings: Embeddings, song: str | np.ndarray, n: int = 5
) -> list[tuple[str, float]]:
    """The songs whose embeddings are most similar to that of one song.

    Parameters
    ----------
    song : str or np.ndarray [shape=(d,)]
        A name in `embeddings.songs`, which is left out of the result; or an embedding of the same
        model.

    Returns
    -------
    list of (str, float)
        Name and cosine similarity, the highest first: `n` pairs, or all if there are fewer.

    Raises
    ------
    EmbeddingError
        If there is no song of that name, or the embedding has another length.

    Examples
    --------
    >>> vectors = np.array([[1, 0], [0, 1], [3, 4]], dtype=np.float32)
    >>> three = Embeddings(["a.mp3", "b.mp3", "c.mp3"], vectors, ["", "", ""], "")
    >>> nearest_songs(three, "b.mp3", n=1)
    [('c.mp3', 0.8)]
    """
    named = isinstance(song, str)
    if named and song not in embeddings.songs:
        raise EmbeddingError(
            f"No embedding of {printable(song)}. Use a name in `songs`, or `GenreClassifier.embed`."
        )
    query = embeddings.vectors[embeddings.songs.index(song)] if named else np.asarray(song)
    if query.shape != embeddings.vectors.shape[1:]:
        raise EmbeddingError(
            f"This embedding has the shape {query.shape}, and those of the songs have "
            f"{embeddings.vectors.shape[1:]}. Use the same model for both."
        )
    similarities = unit_length(embeddings.vectors) @ unit_length(query[None])[0]
    rows = np.argsort(-similarities, kind="stable")
    pairs = [(embeddings.songs[row], round(float(similarities[row]), 4)) for row in rows]
    return [(name, similarity) for name, similarity in pairs if not (named and name == song)][:n]


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Vectors [shape=(n, d)] divided by their lengths; a vector of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)
