"""Vectors of songs on the disk: while they are computed, and in an archive of NumPy."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib import format as npy

from ..files import atomic_write, sweep

if TYPE_CHECKING:
    from upath import UPath

BLOCK = 8192
"""Vectors that are in memory at a time."""


class VectorStore:
    """Vectors by the names of songs, in a temporary file: memory holds the names alone."""

    def __init__(self):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - `__exit__` closes it
        self._rows: dict[str, tuple[int, str]] = {}
        self._width = 0

    def __enter__(self) -> VectorStore:
        return self

    def __exit__(self, *_):
        self._file.close()

    def __len__(self):
        return len(self._rows)

    def __contains__(self, name):
        return name in self._rows

    def add(self, name: str, stamp: str, vector: np.ndarray) -> None:
        """Append a vector [shape=(d,), dtype=float32]."""
        self._width = len(vector)
        self._file.write(np.ascontiguousarray(vector, np.float32).tobytes())
        self._rows[name] = len(self._rows), stamp

    def stamp(self, name: str) -> str:
        """The stamp of a song's file: see `melgenre.paths.FoundFile`."""
        return self._rows[name][1]

    def vectors(self, names: Sequence[str]) -> np.ndarray:
        """The vectors [shape=(n, d), dtype=float32] of songs, in memory."""
        blocks = list(self.blocks(names))
        return np.concatenate(blocks) if blocks else np.zeros((0, 0), np.float32)

    def blocks(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        """The vectors of songs, some thousands at a time."""
        self._file.flush()
        if not names:
            return
        shape = len(self._rows), self._width
        stored = np.memmap(self._file, np.float32, mode="r", shape=shape)
        rows = np.array([self._rows[name][0] for name in names])
        for start in range(0, len(rows), BLOCK):
            yield stored[rows[start : start + BLOCK]]


def blocks_of(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Some thousands of rows at a time."""
    return (vectors[start : start + BLOCK] for start in range(0, len(vectors), BLOCK))


def write_embeddings(
    file: Path | UPath,
    songs: list[str],
    modified: list[str],
    blocks: Iterable[np.ndarray],
    model: str,
) -> None:
    """Write an archive of NumPy with `songs`, `vectors`, `modified` and `model`.

    Names and stamps are texts in UTF-8 with a zero byte between them: an array of texts has the
    length of the longest for each.

    Parameters
    ----------
    blocks
        The vectors [shape=(m, d), dtype=float32] of the songs, one block after the other.
    """
    sweep(file.parent)
    blocks = iter(blocks)
    first = next(blocks, np.zeros((0, 0), np.float32))
    with atomic_write(file) as part, zipfile.ZipFile(part, "w") as archive:
        _write_array(archive, "songs", _joined(songs))
        _write_array(archive, "modified", _joined(modified))
        _write_array(archive, "model", np.array(model))
        # Without the time, so that equal embeddings are equal files.
        with archive.open(zipfile.ZipInfo("vectors.npy"), "w", force_zip64=True) as member:
            shape = len(songs), first.shape[1]
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(member, header)
            member.write(first.tobytes())
            for block in blocks:
                member.write(block.tobytes())


def _write_array(archive, name, array):
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        npy.write_array(member, array, allow_pickle=False)


def _joined(texts):
    return np.frombuffer("\0".join(texts).encode(), np.uint8)


def _split(array):
    if array.dtype != np.uint8:  # as earlier versions wrote texts
        return array.tolist()
    return array.tobytes().decode().split("\0") if array.size else []


def read_embeddings(file: Path) -> tuple[list[str], np.ndarray, list[str], str]:
    """Songs, memory-mapped vectors, stamps and model of an archive.

    Raises
    ------
    Exception
        Of any kind, if the file is no such archive.
    """
    with np.load(file, allow_pickle=False) as stored:
        songs, modified, model = (stored[name] for name in ("songs", "modified", "model"))
    return _split(songs), _mapped_vectors(file), _split(modified), str(model)


def _mapped_vectors(file):
    """The array `vectors` where it lies in the archive."""
    with zipfile.ZipFile(file) as archive:
        if archive.testzip():
            raise ValueError("its content is damaged")
        info = archive.getinfo("vectors.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError("its vectors are compressed")
    with file.open("rb") as opened:
        opened.seek(info.header_offset)
        head = opened.read(30)
        lengths = (int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
        opened.seek(info.header_offset + 30 + sum(lengths))
        if npy.read_magic(opened) != (1, 0):
            raise ValueError("its vectors are of another version of NumPy's format")
        shape, fortran, dtype = npy.read_array_header_1_0(opened)
        if fortran or dtype.hasobject or len(shape) != 2:
            raise ValueError("its vectors are no matrix")
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(file, dtype, mode="r", offset=opened.tell(), shape=shape)
