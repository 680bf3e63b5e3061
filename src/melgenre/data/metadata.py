"""A user's `tracks.csv` -> columns for the table of tracks."""

from __future__ import annotations

import codecs
import io
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..errors import MelgenreError
from ..text import printable, short
from .table import PREFIX

if TYPE_CHECKING:
    from upath import UPath

RESERVED = ("genre", "path", "image", "predicted", "collection", "split", "fold")
"""Columns that melgenre fills, beside the probabilities: a `tracks.csv` cannot set them."""

TEXTS = ("track_id", "artist_id", "genres")
"""Columns that are text, even where all their cells look like numbers."""

LARGEST_TABLE = 100_000_000
"""In bytes, of a `tracks.csv`: a million tracks."""


class CollectionError(MelgenreError, ValueError):
    """Not a valid collection; the message says what was expected."""


def user_metadata(folder: Path | UPath) -> pd.DataFrame:
    """The columns of the `tracks.csv` in a folder, without those that melgenre fills.

    Returns
    -------
    pd.DataFrame
        One row per track, with `track_id`; no row if there is no such file.

    Raises
    ------
    CollectionError
        If it cannot be read, is not a table, or does not name each track once.
    """
    name = f"{printable(folder.name)}/tracks.csv"
    try:
        with (folder / "tracks.csv").open("rb") as file:
            content = file.read(LARGEST_TABLE + 1)
    except FileNotFoundError:
        return pd.DataFrame({"track_id": [], "artist_id": []}, dtype=str)
    except OSError as error:
        raise CollectionError(f"{name} cannot be read ({error.strerror}).") from error
    try:
        table = _read_table(content)
    except Exception as error:  # pandas raises many types for a file that is not a table
        raise CollectionError(
            f"{name} is not a table ({short(error)}). Save it as CSV, in UTF-8, or move it away."
        ) from error
    table = table.dropna(subset="track_id") if "track_id" in table else table
    if "track_id" not in table or table["track_id"].duplicated().any():
        raise CollectionError(
            f"{name} needs a column track_id that names each track once, as in jazz/song for "
            "jazz/song.mp3."
        )
    return table[[column for column in table if not _is_reserved(column)]]


def _is_reserved(column: str) -> bool:
    """Whether a column has the name of one that melgenre fills, in whatever letter case."""
    name = column.casefold()
    return name in RESERVED or name.startswith(PREFIX)


def _read_table(content: bytes) -> pd.DataFrame:
    """The table in the bytes of a CSV file, with the encodings and separators of spreadsheets."""
    if len(content) > LARGEST_TABLE:
        raise ValueError(f"it is larger than {LARGEST_TABLE / 1e6:.0f} MB")
    text = _decoded(content)
    if "\0" in text:
        raise ValueError("it holds bytes that are not text")
    header = text.lstrip().partition("\n")[0]
    options = {
        "sep": max(",;\t", key=header.count),
        "index_col": False,
        "skipinitialspace": True,
        "keep_default_na": False,
        "na_values": [""],
        "low_memory": False,
    }
    with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # overlong rows
        names = pd.read_csv(io.StringIO(text), nrows=0, **options).columns
        types = {name: str for name in names if name.strip() in TEXTS}
        table = pd.read_csv(io.StringIO(text), dtype=types, **options)
    table = table.rename(columns=lambda column: str(column).strip())
    return table.loc[:, ~table.columns.duplicated()]


def _decoded(content: bytes) -> str:
    """Text in UTF-8 or UTF-16, or else in the encoding of Windows in western Europe."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    for encoding in ("utf-8-sig", "cp1252"):
        with suppress(UnicodeDecodeError):
            return content.decode(encoding)
    return content.decode("latin-1")
