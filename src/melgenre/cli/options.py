"""What the commands share: options, and errors as messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from ..errors import MelgenreError
from ..shard import Shard
from ..text import escape_control

SOME_FAILED = 3
MODEL_HELP = (
    "An exported model folder, or hf:owner/name[@revision] on the Hugging Face hub. By default the "
    "model in this package."
)
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
SHARD_HELP = "Only a share of the songs, such as 2/8; `melgenre merge` joins the outputs of all."
ShardOption = Annotated[str | None, typer.Option("--shard", metavar="I/N", help=SHARD_HELP)]
Cluster = Annotated[
    str | None,
    typer.Option(help="Address of a Dask scheduler, such as tcp://10.0.0.5:8786, to work there."),
]
Mel = Annotated[
    list[str] | None,
    typer.Option("--mel", metavar="NAME=VALUE", help="Image setting: n_mels=96, hop_length=512, …"),
]


def shard_and_output(shard, file):
    """The shard of a text such as 2/8, or None, and its output in place of `file`."""
    part = None if shard is None else Shard.parse(shard)
    return part, file if part is None or file is None else part.file(file)


def mel_settings(pairs):
    """The settings of texts such as `n_mels=96`."""
    from ..data.mel_settings import BOUNDS, checked_settings

    values = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            values[name] = BOUNDS[name][0](value)
        except (KeyError, ValueError):
            raise MelgenreError(
                f"--mel {pair} is not an image setting. Use NAME=VALUE with one of the names "
                f"{', '.join(BOUNDS)}, such as --mel n_mels=96."
            ) from None
    return checked_settings(values)


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Report the package's errors and those of files without a traceback, with exit code 1."""
    try:
        yield
    except (MelgenreError, OSError) as error:
        lines = str(error).splitlines()
        typer.echo("\n".join(map(escape_control, lines)), err=True)
        raise typer.Exit(1) from error
