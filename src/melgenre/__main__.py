"""`python -m melgenre` is the command `melgenre`."""

from .cli import app

app(prog_name="melgenre")
