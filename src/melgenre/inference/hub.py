"""Models elsewhere: on the Hugging Face hub, named `hf:owner/name`, or at a URL of fsspec."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import extra_packages
from ..paths import as_path, is_url, patiently
from .model_folder import CONFIG, PRIVATE, ModelError

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

HUB = "hf:"


def is_remote(model: str | Path) -> bool:
    """Whether the name of a model is one of the hub, or a URL."""
    return is_url(model) or str(model).startswith(HUB)


def find_folder(model: str | Path, network: str) -> Path:
    """The folder of a model, which is downloaded if it is on the hub or at a URL.

    Parameters
    ----------
    model
        A folder, a URL such as `s3://bucket/model`, or `hf:owner/name[@revision]`. A folder that
        does not exist is never looked for on the hub: somebody else may own a repository of that
        name.
    network
        The file of the network that is needed: `model.onnx` or `model.safetensors`. Only this
        file and `config.json` are downloaded, never the pickle, which could run code.

    Raises
    ------
    ModelError
        If the download fails.
    MissingPackageError
        If huggingface_hub is not installed.
    """
    if is_url(model):
        return _fetch(str(model), network)
    if not str(model).startswith(HUB):
        return Path(model)
    with extra_packages("hub", "The Hugging Face hub"):
        from huggingface_hub import snapshot_download
    name, _, revision = str(model).removeprefix(HUB).partition("@")
    try:
        folder = snapshot_download(
            name, revision=revision or None, allow_patterns=[CONFIG, network]
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{model} cannot be fetched from the Hugging Face hub ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0]}). Check the name and the connection."
        ) from error
    return Path(folder)


def _fetch(url, network):
    folder, remote = Path(_fetched_models().name, str(abs(hash(url)))), as_path(url)
    folder.mkdir(exist_ok=True)
    for name in (CONFIG, network):
        source = remote / name
        try:
            patiently(source.fs.get_file, source.path, str(folder / name), subject=source)
        except FileNotFoundError as error:
            raise ModelError(
                f"No exported model at {url}: it has no {name}. Copy the folder that "
                "`melgenre train` exports there."
            ) from error
    return folder


@cache
def _fetched_models():
    """A temporary folder that is deleted when the process ends."""
    return tempfile.TemporaryDirectory(prefix="melgenre-models-")


def upload(folder: Path, name: str, *, private: bool, token: str | None) -> CommitInfo:
    """Upload a model folder, without the files that stay on this machine.

    The parameters are those of `GenreClassifier.push_to_hub`.
    """
    with extra_packages("hub", "The Hugging Face hub"):
        from huggingface_hub import HfApi

    api, repository = HfApi(token=token), name.removeprefix(HUB)
    api.create_repo(repository, private=private, exist_ok=True)
    return api.upload_folder(repo_id=repository, folder_path=folder, ignore_patterns=list(PRIVATE))
