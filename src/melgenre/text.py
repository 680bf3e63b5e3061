"""Names of files, messages and cells as text that can be printed, written and opened safely."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that can move the cursor of a terminal, set its colours, or reverse a text."""

FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""The start of a cell that a spreadsheet would run, also with quotes in front of it."""


def path_text(path: str | os.PathLike[str]) -> str:
    r"""A path as text that can be written to a file: bytes that are not UTF-8 become `\xe9`.

    Two paths never become the same text: a backslash that is part of a name is doubled.
    """
    text = os.fsencode(path)
    if os.sep == "/":
        text = text.replace(b"\\", b"\\\\")
    return text.decode("utf-8", "backslashreplace")


def escape_control(text: str) -> str:
    r"""A text for a terminal: control characters become their escapes, such as `\x1b`."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed: as `path_text`, with control characters escaped too."""
    return escape_control(path_text(path))


def short(error: Exception) -> str:
    """The message of an error, at most 300 characters that can be printed and written to a file."""
    message = str(error).encode("utf-8", "backslashreplace").decode()
    return printable(message if len(message) <= 300 else f"{message[:300]}…")


def listed(names: Iterable[str], most: int = 10) -> str:
    """Names in a sentence: the first ones, and how many more there are.

    Examples
    --------
    >>> listed(["blues", "jazz", "rock"], most=2)
    'blues, jazz and 1 more'
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def names_below(paths: Sequence[str | Path]) -> list[str]:
    """Names of files for a message: their paths below the folder that they have in common.

    Each name has at least one folder, since `song.mp3` may be in many albums.

    Examples
    --------
    >>> names_below(["/music/jazz/a.mp3", "/music/rock/a.mp3"])
    ['jazz/a.mp3', 'rock/a.mp3']
    """
    if not paths:
        return []
    paths = [Path(os.path.abspath(path)) for path in paths]
    common = Path(os.path.commonpath([path.parent for path in paths]))
    if common in (path.parent for path in paths):
        common = common.parent
    return [printable(path.relative_to(common)) for path in paths]


def spreadsheet_safe(cell: object) -> object:
    """A cell for a CSV: a text that a spreadsheet would run as a formula gets a quote in front.

    Everything but text is returned unchanged.

    Examples
    --------
    >>> spreadsheet_safe("=1+1")
    "'=1+1"
    """
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def spreadsheet_plain(cell: object) -> object:
    """The inverse of `spreadsheet_safe`."""
    quoted = isinstance(cell, str) and cell.startswith("'") and FORMULA.match(cell)
    return cell[1:] if quoted else cell
