"""The folder that is a model: what lies in it, and what is checked before anything is rebuilt.

It ties `export`, which writes it, to `classifier`, which reads it; neither imports the other.
"""

import json
from pathlib import Path

from .files import printable
from .melspectrogram import MelSettings

FORMAT_VERSION = 3
LEARNER, WEIGHTS, ONNX = "learner.pkl", "model.safetensors", "model.onnx"
CONFIG, CARD = "config.json", "README.md"
SPLIT = "split.csv"
"""Which tracks the model learned from (`train`), and which it did not (`valid`, `test`)."""
PRIVATE = (LEARNER, SPLIT)
"""What stays on this machine: a pickle can run code, and the names of tracks are their owner's."""

FEWEST_CLIPS = 50
"""Validation clips that a limit for "unsure" needs: it shall hold 99 % of them."""


class ModelError(ValueError):
    """An exported model that is missing, damaged or too new; the message says what to do."""


def read_config(folder):
    """What a model's folder says of itself, checked for what is needed to rebuild it.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    dict
        `architecture`, `body`, `genres`, `mel_settings`, `normalisation`, `calibration`,
        `training`, `result`.

    Raises
    ------
    ModelError
        If it is missing, damaged, or was written by a newer melgenre.
    """
    folder = Path(folder)
    file = folder / CONFIG
    if not file.exists():
        found = "it has no config.json" if folder.is_dir() else "there is no such folder"
        raise ModelError(
            f"No exported model in {printable(folder)}: {found}. `make run` (notebook 04) and "
            "`melgenre train` export one; or name another folder (in the shell with --model). A "
            "model on the Hugging Face hub is named hf:owner/name."
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        version = config["format_version"]
        config["architecture"], config["genres"], config["normalisation"]
        MelSettings(**config["mel_settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder.name}/config.json is damaged ({error}). Export the learner again."
        ) from error
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{folder.name} is of format {version}, and this melgenre reads up to "
            f"{FORMAT_VERSION}. Update melgenre."
        )
    # Format 1 knew no other body, and formats 1 and 2 no calibration.
    return {"body": "whole", "calibration": {"temperature": 1.0, "strangest": None}, **config}


def damaged(folder, error):
    """The `ModelError` for a network that cannot be rebuilt from its folder's files."""
    return ModelError(
        f"The model in {folder.name} is damaged: {str(error).splitlines()[0]}. Export the "
        "learner again, or copy the whole folder again."
    )
