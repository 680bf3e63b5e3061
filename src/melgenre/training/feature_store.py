"""Features on disk: files that grow by appending, and arrays that read their rows when indexed."""

import json
import math
import os
import shutil
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ..errors import MelgenreWarning
from ..files import atomic_write, locked, sweep

MOST_IN_MEMORY = 2**29
"""Bytes of features that are held in memory; more are read from disk row by row."""

BLOCK_BYTES = 2**26
"""Bytes of features that a pass over all rows reads at a time."""

MAPPED_ROWS = 1000
"""Rows that are read by one mapping of a file: the system maps 64 kB around each."""

RECORD = np.dtype([("key", "S16"), ("crc", "<u4")])
"""Of a row: the MD5 checksum of the image, and the CRC-32 of the features."""


class FeatureStore:
    """The features of one body: a folder of rows that only grows.

    `rows.bin` has the rows as float32, `keys.bin` a `RECORD` for each, and `shape.json` the shape
    of a row. A row is written before its record, so what a killed process leaves is complete up to
    the last record; the rest is overwritten. Where a key occurs twice, its last row counts.

    Parameters
    ----------
    folder
        Of one body, device and precision; made when the first rows are added.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows, self.records = folder / "rows.bin", folder / "keys.bin"

    def shape(self) -> tuple[int, ...] | None:
        """The shape of a row; None if the store is empty or damaged."""
        try:
            shape = json.loads((self.folder / "shape.json").read_text())
            return tuple(map(int, shape)) or None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            self._warn()
            return None

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The row of each key [shape=(n,)]; -1 where there is none.

        Parameters
        ----------
        keys : np.ndarray [shape=(n,), dtype=S16]
        """
        stored = self._read_records()["key"]
        if not len(stored):
            return np.full(len(keys), -1)
        order = np.argsort(stored, kind="stable")
        at = np.searchsorted(stored, keys, side="right", sorter=order) - 1
        rows = order[at.clip(0)]
        return np.where((at >= 0) & (stored[rows] == keys), rows, -1)

    def find_intact(self, keys: np.ndarray) -> np.ndarray:
        """As `find`, but -1 also where a row is damaged; a warning says so."""
        found = self.find(keys)
        present = np.flatnonzero(found >= 0)
        if not len(present):
            return found
        sums = self._read_records()["crc"][found[present]]
        blocks = feature_blocks(StoredFeatures([(self, found[present])]))
        intact = [zlib.crc32(row) for block in blocks for row in block.numpy()] == sums
        found[present[~intact]] = -1
        if not intact.all():
            self._warn()
        return found

    def append(self, keys: np.ndarray, features: np.ndarray) -> None:
        """Add rows [shape=(n, ...), dtype=float32]. Raises `OSError` if they cannot be written."""
        features = np.ascontiguousarray(features)
        with locked(self.folder):  # another process may add to it at the same time
            new = self.shape() != features.shape[1:]
            try:
                if new:
                    shutil.rmtree(self.folder, ignore_errors=True)
                    self.folder.mkdir(parents=True)
                    with atomic_write(self.folder / "shape.json") as part:
                        part.write_text(json.dumps(features.shape[1:]))
                sweep(self.folder)
                count = self._count(features.shape[1:])
                records = np.zeros(len(keys), RECORD)
                records["key"], records["crc"] = keys, [zlib.crc32(row) for row in features]
                _write_at(self.rows, count * features[0].nbytes, features)
                _write_at(self.records, count * RECORD.itemsize, records)
            except OSError:
                if new:
                    shutil.rmtree(self.folder, ignore_errors=True)
                raise

    def _count(self, shape):
        """The number of complete rows."""
        try:
            size, records = self.rows.stat().st_size, self.records.stat().st_size // RECORD.itemsize
        except FileNotFoundError:
            return 0
        complete = size // (4 * math.prod(shape))
        if complete < records:  # a row is written before its record
            self._warn()
        return min(complete, records)

    def _read_records(self):
        """The records of all complete rows."""
        shape = self.shape()
        count = 0 if shape is None else self._count(shape)
        return np.fromfile(self.records, RECORD, count) if count else np.zeros(0, RECORD)

    def _warn(self):
        warnings.warn(
            f"The cached features in {self.folder.name} are damaged and are computed again.",
            MelgenreWarning,
            stacklevel=4,
        )


def _write_at(file, offset, array):
    """Replace all that follows an offset of a file by an array."""
    with file.open("r+b" if file.exists() else "w+b") as opened:
        opened.truncate(offset)
        opened.seek(offset)
        opened.write(memoryview(np.ascontiguousarray(array)).cast("B"))


class StoredFeatures:
    """Features on disk: an array [shape=(n, ...), dtype=float32] of which indexing reads rows.

    The files are mapped to memory for some rows at a time, so that the memory of the process does
    not grow. `numpy.asarray` reads all rows.

    Parameters
    ----------
    parts : sequence of (FeatureStore, np.ndarray [shape=(n,)])
        Stores with the row of each track. Several bodies give more columns.
    """

    def __init__(self, parts: Sequence[tuple[FeatureStore, np.ndarray]]):
        self.parts = list(parts)
        self.files = [store.rows.open("rb") for store, _ in parts]
        self.row_shapes = [store.shape() for store, _ in parts]
        width = sum(first for first, *_ in self.row_shapes)
        self.shape = (len(parts[0][1]), width, *self.row_shapes[0][1:])
        self.nbytes = 4 * math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> np.ndarray:
        """Rows [shape=(len(index), ...)], in memory."""
        read = []
        for file, shape, (_, rows) in zip(self.files, self.row_shapes, self.parts, strict=True):
            count = os.fstat(file.fileno()).st_size // (4 * math.prod(shape))
            wanted = rows[index]
            read.append(np.empty((len(wanted), *shape), np.float32))
            for start in range(0, len(wanted), MAPPED_ROWS):
                mapped = np.memmap(file, np.float32, "r", shape=(count, *shape))
                read[-1][start : start + MAPPED_ROWS] = mapped[wanted[start : start + MAPPED_ROWS]]
        return read[0] if len(read) == 1 else np.concatenate(read, axis=1)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def feature_blocks(features: np.ndarray | StoredFeatures) -> Iterator[torch.Tensor]:
    """Features as tensors [shape=(rows, ...)]: one for an array, blocks of those on disk."""
    if isinstance(features, np.ndarray):
        yield torch.from_numpy(features)
        return
    rows = max(1, BLOCK_BYTES * len(features) // features.nbytes)
    for start in range(0, len(features), rows):
        yield torch.from_numpy(features[start : start + rows])
