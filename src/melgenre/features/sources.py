"""`sources.json` beside images: the recording that each was made from, its size and its time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import atomic_write, due_again
from ..paths import is_url, stamps

if TYPE_CHECKING:
    from upath import UPath

RECORDS_FILE = "sources.json"
SECONDS_BETWEEN_RECORDS = 2  # a killed run repeats the images since the last record
LARGEST_SHARE = 0.05  # of the time, for writing records


def sources_of(paths: Sequence[str | None], folder: Path | UPath) -> Iterator[str | None]:
    """What each image is made from, as JSON: the recording below the folder of images, its size
    and its time; None without a recording."""

    @cache
    def place(parent):
        return os.path.relpath(parent or ".", folder)

    paths = [path if isinstance(path, str) else "" for path in paths]
    for path, stamp in zip(paths, stamps(paths), strict=True):
        if not stamp:
            yield None
        elif is_url(path):
            yield json.dumps([path, stamp])
        else:
            parent, name = os.path.split(path)
            time_ns, size = map(int, stamp.split("-"))
            name = name if is_url(folder) else os.path.join(place(parent), name)
            yield json.dumps([name, size, time_ns])


def read_records(file: Path | UPath) -> dict[str, str]:
    """The source of each image as JSON, by its path in the folder; nothing of a damaged file.

    Each shard has a file of its own.
    """
    found = {}
    others = file.parent.glob(f"{Path(RECORDS_FILE).stem}*.json") if file.parent.exists() else ()
    for one in [*sorted(others, key=str), file]:
        with suppress(OSError, ValueError, AttributeError, RecursionError):
            found.update(_records_in(one))
    return found


def _records_in(file):
    try:
        return dict(_lines_of(file))
    except ValueError:  # as earlier versions wrote it
        records = json.loads(file.read_text(encoding="utf-8"))
        return {image: json.dumps(source) for image, source in records.items()}


def _lines_of(file):
    """Image and source of each line: a million of them would take a gigabyte as lists."""
    decode = json.JSONDecoder().raw_decode
    with file.open(encoding="utf-8") as opened:
        if opened.readline() != "{\n":
            raise ValueError("not a record per line")
        for line in opened:
            if line == "}\n":
                return
            image, end = decode(line)
            source = line[end:].removeprefix(": ").removesuffix("\n").removesuffix(",")
            if not (isinstance(image, str) and source.startswith("[") and source.endswith("]")):
                raise ValueError("not a record per line")
            yield image, source
    raise ValueError("it has no end")


def write_records(file: Path | UPath, records: dict[str, str]) -> float:
    """Write the records; returns when to do so again."""
    started = time.monotonic()
    with atomic_write(file) as part, part.open("w", encoding="utf-8") as opened:
        opened.write("{")
        for number, image in enumerate(sorted(records)):
            opened.write(f"{',' if number else ''}\n{json.dumps(image)}: {records[image]}")
        opened.write("\n}\n")
    return due_again(started, SECONDS_BETWEEN_RECORDS, LARGEST_SHARE)
