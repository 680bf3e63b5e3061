"""Embeddings of songs: of a folder, in parallel and resumable, and the nearest songs by cosine."""

from __future__ import annotations

import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MelgenreError, MelgenreWarning
from ..files import due_again, locked
from ..paths import StoreError, as_path, is_url, local_copy, patiently, walk_order
from ..shard import Shard, several_models, shard_files
from ..text import printable, short
from .batch import cannot_write, map_songs, reason_of
from .classifier import GenreClassifier
from .song_table import LARGEST_SHARE
from .songs import Folder, list_songs
from .vector_store import VectorStore, blocks_of, read_embeddings, write_embeddings

if TYPE_CHECKING:
    from upath import UPath

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
    folder: Folder,
    file: str | Path | UPath | None = None,
    *,
    shard: Shard | None = None,
    progress: bool = True,
) -> Embeddings:
    """Compute the embedding of every song in a folder.

    Songs are embedded in parallel, one per core, or on the cluster of `joblib.parallel_config`. The
    file is written every half a minute and when the run is interrupted, so the next run resumes:
    only new and changed songs are computed, and those that could not be used before. Songs that are
    gone are removed from it. A file of another model is started anew, with a warning.

    Parameters
    ----------
    folder
        A path, a URL such as `s3://bucket/music`, or a list of files.
    file
        For `load_embeddings`, by path or URL; by default, no file is written.
    shard
        Only this share of the songs.
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
    listed = list_songs(folder) if shard is None else shard.of(list_songs(folder))
    songs = {song.name: song for song in listed}
    file = None if file is None else as_path(file)
    with nullcontext() if file is None else locked(file), VectorStore() as store:
        if file is not None:
            _add_unchanged(store, file, classifier.fingerprint, songs)
        todo = [song for song in songs.values() if song.name not in store]
        errors, due = {}, time.monotonic() + SECONDS_BETWEEN
        try:
            for row, (vector, error) in map_songs(_embed, classifier, todo, progress=progress):
                song = todo[row]
                if error:
                    errors[song.name] = error
                else:
                    store.add(song.name, song.stamp, vector)
                if file and time.monotonic() > due:
                    due = _save(file, store, songs, classifier.fingerprint)
        finally:  # also when the user interrupts it
            if file and len(store):
                _save(file, store, songs, classifier.fingerprint)
        if file and len(store) and not is_url(file):
            return replace(load_embeddings(file), errors=errors)  # memory-mapped
        names = [name for name in songs if name in store]
        stamps = list(map(store.stamp, names))
        return Embeddings(names, store.vectors(names), stamps, classifier.fingerprint, errors)


def _add_unchanged(store, file, model, songs):
    """Add what a file has of songs that have not changed since."""
    if not patiently(file.exists, subject=file):
        if not is_url(file) and not file.parent.is_dir():
            raise cannot_write(file, "there is no such folder")
        return
    before = load_embeddings(file)
    if before.model != model:
        warnings.warn(
            f"{printable(file.name)} was written with another model and is started anew.",
            MelgenreWarning,
            stacklevel=3,
        )
        return
    for name, when, vector in zip(before.songs, before.modified, before.vectors, strict=True):
        song = songs.get(name)
        if song is not None and when == song.stamp:
            store.add(song.name, song.stamp, vector)  # the texts that are in memory already


def _embed(classifier, song):
    """The vector of one song, and why there is none."""
    try:
        return classifier.embed(as_path(song.path)), ""
    except Exception as error:  # decoders raise errors of any kind
        return None, reason_of(error, song.name)


def _save(file, store, songs, model):
    """Write the embeddings so far, in the order of the songs; returns when to do so again."""
    started = time.monotonic()
    names = [name for name in songs if name in store]
    try:
        write_embeddings(file, names, list(map(store.stamp, names)), store.blocks(names), model)
    except StoreError:
        raise
    except OSError as error:
        raise cannot_write(file, error.strerror) from error
    return due_again(started, SECONDS_BETWEEN, LARGEST_SHARE)


def load_embeddings(file: str | Path | UPath) -> Embeddings:
    """Load the embeddings that `embed_folder` or `melgenre embed` wrote.

    The file is an archive of NumPy: `songs`, `vectors`, `modified` and `model`. The vectors of a
    local file are memory-mapped: they are read when they are used.

    Raises
    ------
    EmbeddingError
        If there is no such file, or it has no embeddings.
    """
    file = as_path(file)
    if not patiently(file.exists, subject=file):
        raise EmbeddingError(
            f"There is no file {printable(str(file))}. `melgenre embed FOLDER --out "
            f"{printable(str(file))}` writes it."
        )
    try:
        with local_copy(file) as copy:
            songs, vectors, times, model = read_embeddings(copy)
            if is_url(file):
                vectors = np.array(vectors)
        if not (len(songs) == len(vectors) == len(times) and vectors.ndim == 2):
            raise ValueError("its arrays do not belong together")
        if vectors.dtype != np.float32 or not all(map(_all_finite, blocks_of(vectors))):
            raise ValueError("its vectors are not numbers")
    except StoreError:
        raise
    except Exception as error:  # a damaged archive raises errors of any kind
        raise EmbeddingError(
            f"{printable(file.name)} has no embeddings of songs ({short(error)}). Name another "
            "file, or delete it and compute them again."
        ) from error
    return Embeddings(songs, vectors, times, model)


def merge_embeddings(whole: str | Path | UPath) -> int:
    """Join the files of all shards to the one that a run without shards writes.

    Returns
    -------
    int
        The number of songs.

    Raises
    ------
    ShardError
        If a shard is missing.
    EmbeddingError
        If they are of several models.
    """
    shards = list(map(load_embeddings, shard_files(whole)))
    models = {shard.model for shard in shards}
    if len(models) > 1:
        raise EmbeddingError(several_models(whole))
    with VectorStore() as store:
        for one in shards:
            for row in zip(one.songs, one.modified, one.vectors, strict=True):
                store.add(*row)
        songs = sorted({name for one in shards for name in one.songs}, key=walk_order)
        _save(as_path(whole), store, songs, *models)
    return len(songs)


def _all_finite(block):
    return np.isfinite(block).all()


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
