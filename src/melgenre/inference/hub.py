"""Models on the Hugging Face hub: download those that are named `hf:owner/name`, and upload."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import extra_packages
from .model_folder import CONFIG, PRIVATE, ModelError

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

HUB = "hf:"


def find_folder(model: str | Path, network: str) -> Path:
    """The folder of a model, which is downloaded if it is on the hub.

    Parameters
    ----------
    model
        A folder, or `hf:owner/name[@revision]`. A folder that does not exist is never looked for
        on the hub: somebody else may own a repository of that name.
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


def upload(folder: Path, name: str, *, private: bool, token: str | None) -> CommitInfo:
    """Upload a model folder, without the files that stay on this machine.

    The parameters are those of `GenreClassifier.push_to_hub`.
    """
    with extra_packages("hub", "The Hugging Face hub"):
        from huggingface_hub import HfApi

    api, repository = HfApi(token=token), name.removeprefix(HUB)
    api.create_repo(repository, private=private, exist_ok=True)
    return api.upload_folder(repo_id=repository, folder_path=folder, ignore_patterns=list(PRIVATE))
