"""A share of the files, for batch queues: `--shard 2/8` is every eighth, from the second on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from .errors import MelgenreError
from .paths import as_path
from .text import printable

if TYPE_CHECKING:
    from upath import UPath

Item = TypeVar("Item")


class ShardError(MelgenreError, ValueError):
    """Not a shard, or shards that do not make a whole."""


class Shard(NamedTuple):
    """One of `count` shares of the files.

    Examples
    --------
    >>> shard = Shard.parse("2/3")
    >>> list(shard.of("abcdefgh")), shard.file("genres.csv").name
    (['b', 'e', 'h'], 'genres.2-of-3.csv')
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard of a text such as `2/8`.

        Raises
        ------
        ShardError
            If the text is no shard.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ShardError(f"--shard {text} is no shard. The second of eight is --shard 2/8.")
        return cls(int(found[1]), int(found[2]))

    def of(self, items: Iterable[Item]) -> Iterator[Item]:
        """Every `count`-th item, from the `number`-th on."""
        return islice(items, self.number - 1, None, self.count)

    def file(self, whole: str | Path | UPath) -> Path | UPath:
        """The file of this shard beside the file that `melgenre merge` writes."""
        whole = as_path(whole)
        return whole.with_name(f"{whole.stem}.{self.number}-of-{self.count}{whole.suffix}")


def several_models(whole: str | Path | UPath) -> str:
    """The sentence for shards that do not belong together."""
    return (
        f"The shards of {printable(as_path(whole).name)} are of several models. Run them again "
        "with one."
    )


def shard_files(whole: str | Path | UPath) -> list[Path | UPath]:
    """The files of all shards of a file, in the order of their numbers.

    Raises
    ------
    ShardError
        If there are none, one is missing, or those of several partitions are there.
    """
    whole, found = as_path(whole), defaultdict(dict)
    form = re.compile(rf"{re.escape(whole.stem)}\.(\d+)-of-(\d+){re.escape(whole.suffix)}")
    for file in whole.parent.iterdir() if whole.parent.is_dir() else ():
        if named := form.fullmatch(file.name):
            found[int(named[2])][int(named[1])] = file
    if len(found) != 1:
        kinds = " and ".join(f"of {count}" for count in sorted(found))
        raise ShardError(
            f"{printable(whole.parent)} has {'no shard' if not found else f'shards {kinds}'} of "
            f"{printable(whole.name)}. It needs all files of one partition, such as "
            f"{printable(Shard(1, 2).file(whole).name)} and {Shard(2, 2).file(whole).name}."
        )
    ((count, files),) = found.items()
    missing = [Shard(n, count).file(whole).name for n in range(1, count + 1) if n not in files]
    if missing:
        raise ShardError(
            f"{len(missing)} of {count} shards are missing: {', '.join(missing[:5])}. Run them "
            "first; `melgenre … --shard i/n` writes each."
        )
    return [files[number] for number in sorted(files)]
