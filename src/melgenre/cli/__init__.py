"""The commands `melgenre predict`, `embed`, `merge`, `extract`, `train` and `app`.

Exit codes: 0, success; 1, nothing could be done, and a sentence names the reason; 2, wrong usage;
3, some of the recordings could not be used.
"""

import warnings
from typing import Annotated

import typer

from .. import __version__
from ..errors import MelgenreWarning
from ..text import escape_control
from .collection import extract, train
from .page import page
from .songs import embed, merge, predict

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes the [app] of melgenre[app] for its own markup
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"melgenre {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Music genre classification from mel-spectrograms."""
    # Silence deprecation warnings of torch and fastai.
    warnings.simplefilter("ignore", FutureWarning)
    warnings.filterwarnings("ignore", module=r"(torch|fastai)\.")
    warnings.simplefilter("always", MelgenreWarning)
    # The message alone, without the line of code.
    warnings.formatwarning = lambda message, *_: f"{escape_control(str(message))}\n"


for command in (predict, embed, merge, extract, train):
    app.command()(command)
app.command("app")(page)
