"""The songs of a folder, in a stable order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.audio import AUDIO_SUFFIXES
from ..errors import MelgenreError
from ..paths import FoundFile, absolute, as_path, is_url, list_files, stamps
from ..text import path_text, printable

if TYPE_CHECKING:
    from upath import UPath

Folder = str | Path | Sequence[str | Path]
"""A folder of songs, by path or URL, or a list of files."""


class NoSongsError(MelgenreError, FileNotFoundError):
    """A folder without recordings."""


def find_audio_files(folder: str | Path) -> list[Path | UPath]:
    """The audio files below a folder, sorted. Links are followed; loops of links are not.

    Raises
    ------
    NoSongsError
        If the folder does not exist, or has no audio file.
    """
    return [as_path(song.path) for song in list_songs(folder)]


def list_songs(folder: Folder) -> Iterator[FoundFile]:
    """The songs of a folder, or those of a list of files.

    Their paths are absolute, or URLs. The names of a folder's songs are their paths below it as
    text that can be written to a file, those of a list are the paths as they are given.

    Raises
    ------
    NoSongsError
        If the folder does not exist, or has no audio file.
    """
    if isinstance(folder, (list, tuple)):
        yield from _listed(folder)
        return
    found = False
    for song in _found(folder):
        found = True
        yield song
    if not found:
        raise NoSongsError(
            f"{printable(str(folder))}: no sound in this folder. It should hold files such as "
            "song.mp3 or song.wav."
        )


def _found(folder):
    folder = str(folder) if is_url(folder) else os.path.abspath(folder)
    for file in list_files(folder):
        if os.path.splitext(file.name)[1].lower() in AUDIO_SUFFIXES:
            name = path_text(file.name)
            # Of a million names, each is kept once.
            yield file if name == file.name else file._replace(name=name)


def _listed(files):
    paths = [absolute(file) for file in files]
    for file, path, stamp in zip(files, paths, stamps(paths), strict=True):
        yield FoundFile(path, path_text(str(file)), stamp)
