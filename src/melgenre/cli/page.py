"""The command for the web page: `app`."""

from typing import Annotated

import typer

from ..errors import extra_packages
from .options import MODEL_HELP, errors_as_messages


def page(
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    host: Annotated[
        str, typer.Option(help="Address to bind; 0.0.0.0 is the whole network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page.")] = 7860,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name of this machine in the network. Can be repeated."),
    ] = None,
) -> None:
    """Serve a web page that predicts genres (needs melgenre[app])."""
    from ..inference.model_folder import default_model

    with errors_as_messages():
        with extra_packages("app", "The page"):
            from ..app.page import serve
        named = default_model() if model is None else model
        serve(named, host=host, port=port, allow_hosts=allow_host or ())
