"""A CSV of songs, one row each: written row by row, resumed, and sorted at the end.

Only the names of the songs and the places of their rows are kept in memory, so that a table of a
million songs takes some hundred megabytes.
"""

from __future__ import annotations

import csv
import io
import tempfile
import time
import warnings
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import MelgenreError, MelgenreWarning
from ..files import atomic_write, due_again, locked, sweep, temporary_folder
from ..paths import as_path, is_url, local_copy, patiently, upload
from ..shard import several_models, shard_files
from ..text import printable, spreadsheet_plain, spreadsheet_safe

if TYPE_CHECKING:
    from upath import UPath

RENAMED_COLUMNS = {"strangeness": "ood_score"}
"""Columns of a CSV that an earlier version wrote, and their names today."""

SECONDS_BETWEEN_UPLOADS = 30
LARGEST_SHARE = 0.1
"""Of the time, for uploads: a store takes whole files only."""


class TableError(MelgenreError, ValueError):
    """A CSV that is not a table of genres."""


class SongTable:
    """The rows of a CSV with the columns `song`, `modified` and `model`, among others.

    Parameters
    ----------
    file
        A local file; it is created if it does not exist.
    columns
        The first is `song`.
    model
        The fingerprint of the model. A table of another model is started anew, with a warning.

    Attributes
    ----------
    stamps : dict
        `modified` of each song in the table.

    Raises
    ------
    TableError
        If the file is not such a table.
    OSError
        If it cannot be written.
    """

    def __init__(self, file: Path, columns: list[str], model: str):
        self.file, self.columns = file, columns
        self.stamps: dict[str, str] = {}
        self._rows: dict[str, int] = {}  # the number of each song's row
        self._starts = array("q")  # of the rows, and the end of the last
        if file.exists():
            self._read_index(model)
        if not self._starts:
            with atomic_write(file) as part:  # a killed run leaves no file without its header
                part.write_bytes(_line(columns))
            self._starts.append(file.stat().st_size)
        self._opened = file.open("r+b")
        self._opened.truncate(self._starts[-1])  # the partial last line of a killed run
        self._opened.seek(0, io.SEEK_END)

    def __len__(self):
        return len(self._rows)

    def _read_index(self, model):
        """Find the rows of an existing file."""
        positions = self.columns.index("song"), self.columns.index("modified")
        model_at, width = self.columns.index("model"), len(self.columns)
        try:
            with self.file.open("rb") as opened:
                rows = _cells(opened)
                end, header = next(rows, (0, []))
                found = [RENAMED_COLUMNS.get(name, name) for name in header]
                self._check_header(found)
                same = found == self.columns
                if same:
                    self._starts.append(end)
                for end, cells in rows if same else ():
                    if len(cells) != width:
                        break
                    if cells[model_at] != model:
                        same = False
                        break
                    song, modified = (spreadsheet_plain(cells[at]) for at in positions)
                    self._rows[song] = len(self._starts) - 1
                    self.stamps[song] = modified
                    self._starts.append(end)
        except (ValueError, csv.Error) as error:
            raise TableError(
                f"{printable(self.file.name)} is not a table of genres ({error}). Name another "
                "file."
            ) from error
        if not same:
            warnings.warn(
                f"{printable(self.file.name)} was written with another model and is started anew.",
                MelgenreWarning,
                stacklevel=7,  # the caller of `classify_folder`
            )
            self.stamps, self._rows, self._starts = {}, {}, array("q")

    def _check_header(self, found):
        # The first versions wrote no column `model`.
        needed = {name for name in self.columns if not name.startswith("p_")} - {"model"}
        if found[:1] != self.columns[:1] or not needed <= {*found}:
            raise ValueError("it has other columns")

    def write(self, row: dict) -> None:
        """Append a row, which replaces an earlier one of the song."""
        self._opened.write(_line(spreadsheet_safe(row.get(name, "")) for name in self.columns))
        self._opened.flush()
        self._rows[row["song"]] = len(self._starts) - 1
        self._starts.append(self._opened.tell())

    def sort(self, songs: Iterable[str]) -> None:
        """Order the rows as the songs are; rows of others come before them."""
        listed = dict.fromkeys(songs)
        order = [song for song in self._rows if song not in listed]
        order += listed
        self._opened.close()
        starts = array("q")
        with (
            atomic_write(self.file) as part,
            part.open("wb") as whole,
            self.file.open("rb") as opened,
        ):
            whole.write(_line(self.columns))
            for song in order:
                starts.append(whole.tell())
                whole.write(self._read_line(opened, song))
            starts.append(whole.tell())
        self._rows, self._starts = {song: row for row, song in enumerate(order)}, starts

    def rows(self, songs: Iterable[str]) -> Iterator[dict]:
        """The rows of some songs, as texts."""
        with self.file.open("rb") as opened:
            for song in songs:
                (cells,) = csv.reader([self._read_line(opened, song).decode()])
                yield dict(zip(self.columns, map(spreadsheet_plain, cells), strict=True))

    def _read_line(self, opened, song):
        row = self._rows[song]
        opened.seek(self._starts[row])
        return opened.read(self._starts[row + 1] - self._starts[row])

    def close(self) -> None:
        """Close the file."""
        self._opened.close()


def _line(cells):
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()


def _cells(opened: BinaryIO) -> Iterator[tuple[int, list[str]]]:
    """Where each row of a CSV ends, and its cells; a last line without an end is left out."""
    end = 0

    def lines():
        nonlocal end
        for line in opened:
            if line.endswith(b"\n"):
                end += len(line)
                yield line.decode()

    for cells in csv.reader(lines()):
        yield end, cells


@contextmanager
def song_table(
    file: str | Path | UPath | None, columns: list[str], model: str
) -> Iterator[SongTable]:
    """Open the table in a file, in a copy of a URL's file, or without a file in a temporary one.

    The copy is uploaded every half a minute, and when the block ends or is interrupted. Other
    processes of this machine that write the same file wait for the end of the block.
    """
    if file is not None and not is_url(file):
        with locked(file):
            sweep(Path(file).parent)
            with closing(SongTable(Path(file), columns, model)) as table:
                yield table
        return
    with temporary_folder(tempfile.gettempdir()) as folder:
        if file is None:
            with closing(SongTable(folder / "songs.csv", columns, model)) as table:
                yield table
            return
        with locked(file):
            remote, copy = as_path(file), folder / "songs.csv"
            if patiently(remote.exists, subject=file):
                patiently(remote.fs.get_file, remote.path, str(copy), subject=file)
            with closing(_RemoteTable(copy, columns, model, remote)) as table:
                yield table


class _RemoteTable(SongTable):
    """A table in a local copy of a URL's file."""

    def __init__(self, file, columns, model, remote):
        super().__init__(file, columns, model)
        self._remote, self._due = remote, time.monotonic() + SECONDS_BETWEEN_UPLOADS

    def write(self, row):
        super().write(row)
        if time.monotonic() > self._due:
            started = time.monotonic()
            upload(self.file, self._remote)
            self._due = due_again(started, SECONDS_BETWEEN_UPLOADS, LARGEST_SHARE)

    def close(self):
        super().close()
        upload(self.file, self._remote)


def merge_tables(whole: str | Path | UPath) -> int:
    """Join the CSVs of all shards to the one that a run without shards writes.

    Returns
    -------
    int
        The number of songs.

    Raises
    ------
    ShardError
        If a shard is missing.
    TableError
        If they do not belong together.
    """
    with ExitStack() as stack:
        copies = [stack.enter_context(local_copy(file)) for file in shard_files(whole)]
        opened = [stack.enter_context(copy.open(newline="", encoding="utf-8")) for copy in copies]
        tables = list(map(csv.reader, opened))
        header, *others = (next(table, []) for table in tables)
        part = stack.enter_context(atomic_write(whole))
        out = csv.writer(stack.enter_context(part.open("w", newline="", encoding="utf-8")))
        out.writerow(header)
        songs, models = set(), set()
        for row in filter(None, chain.from_iterable(zip_longest(*tables))):
            models.add(row[-1])
            if any(other != header for other in others) or len(models) > 1:
                raise TableError(several_models(whole))
            if row[0] not in songs:
                songs.add(row[0])
                out.writerow(row)
    return len(songs)
