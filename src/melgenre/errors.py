"""The base of all errors and warnings that this package raises on purpose."""

from collections.abc import Iterator
from contextlib import contextmanager

OPTIONAL = {
    "IPython",
    "PIL",
    "accelerate",
    "anywidget",
    "dask",
    "fastai",
    "gradio",
    "huggingface_hub",
    "librosa",
    "matplotlib",
    "pandas",
    "pooch",
    "pyarrow",
    "python_multipart",
    "safetensors",
    "scipy",
    "sklearn",
    "starlette",
    "threadpoolctl",
    "timm",
    "torch",
    "torchvision",
    "traitlets",
    "upath",
    "uvicorn",
}
"""Packages of the extras in pyproject.toml, by the names that are imported."""


class MelgenreError(Exception):
    """Something that cannot be used or done; the message says what, why, and what to do.

    The specific errors also derive from the built-in error that fits, such as `ValueError`.
    """


class MissingPackageError(MelgenreError, ImportError):
    """A package of an extra that is not installed; the message says how to install it."""


@contextmanager
def extra_packages(extra: str, subject: str) -> Iterator[None]:
    """Imports in the block need an extra: raise `MissingPackageError` where it is not installed.

    Any other `ImportError` is a fault, and is raised as it is.

    Parameters
    ----------
    extra
        A key of `optional-dependencies` in pyproject.toml.
    subject
        What needs it: the subject of the message.

    Examples
    --------
    >>> with extra_packages("train", "Training"):
    ...     raise ModuleNotFoundError(name="torch")
    Traceback (most recent call last):
        ...
    melgenre.errors.MissingPackageError: Training needs more packages (torch is not installed): \
pip install "melgenre[train]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        raise MissingPackageError(
            f"{subject} needs more packages ({error.name} is not installed): "
            f'pip install "melgenre[{extra}]"'
        ) from None


class MelgenreWarning(UserWarning):
    """Something that a user should know although the work goes on, in one sentence."""
