"""An exported model folder -> the learner, and the split that it was trained with."""

import io
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from fastai.vision.all import Learner, load_learner

from ..errors import MelgenreWarning
from ..evaluation.run import Run
from ..inference.model_folder import (
    CONFIG,
    LEARNER,
    SPLIT,
    ModelError,
    damaged_model,
    read_checked,
    read_config,
)
from ..text import short, spreadsheet_plain


def load_exported(
    folder: str | Path, *, device: str | torch.device = "cpu"
) -> tuple[Learner, dict[str, Any]]:
    """Load an exported learner by fastai's `load_learner`, with its config.

    A pickle can run code when it is loaded: load only what you or people you trust have made.

    Parameters
    ----------
    folder
        Of `export_learner`.
    device
        Where the learner predicts, as torch names it.

    Returns
    -------
    learn : fastai.learner.Learner
    config : dict
        `genres`, `mel_settings`, `training`, `result`, …

    Raises
    ------
    ModelError
        If there is no exported learner; or if it was pickled by other versions, or is damaged.
    """
    folder = Path(folder)
    if not (folder / LEARNER).exists() or not (folder / CONFIG).exists():
        raise ModelError(
            f"No exported learner in {folder.name!r}: it has no learner.pkl with a config.json. "
            "Run notebook 04 (resnet34) or 05 (resnet50) first; on Colab, with the same Drive."
        )
    config = read_config(folder)
    pickled = io.BytesIO(read_checked(folder, config, LEARNER))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="load_learner")  # see the docstring
        try:
            learn = load_learner(pickled)
        except Exception as error:  # a pickle of other versions raises errors of any kind
            versions = config["training"].get("versions", {})
            raise ModelError(
                f"learner.pkl in {folder.name} does not fit these versions of fastai and torch, or "
                f"is damaged ({short(error)}). It was made with {versions}. Load the same model "
                "without it by GenreClassifier.load, install those versions, or export the learner "
                "again."
            ) from error
    learn.dls.to(torch.device(device))
    learn.model.to(device)
    learn.training_run = _run_of(config)
    return learn, config


def _run_of(config):
    """The record of the training of an exported model; older formats lack some of it."""
    training = config["training"]
    record = {
        "model": f"{config['architecture']}, {training['recipe']}",
        "architecture": config["architecture"],
        **{one.name: training[one.name] for one in fields(Run) if one.name in training},
        "mel_settings": config["mel_settings"],
    }
    thresholds = config["calibration"].get("thresholds")
    return Run(**record, result=config["result"], thresholds=thresholds)


def load_split(folder: str | Path, tracks: pd.DataFrame) -> pd.DataFrame:
    """Load the split that an exported model was trained with.

    Parameters
    ----------
    folder
        Of `export_learner`.
    tracks
        Of the same collection, or of another one, of which all tracks are `test` then.

    Returns
    -------
    pd.DataFrame
        The tracks with the column `split`: `train`, `valid` or `test`; missing where the model's
        split left a track out.

    Raises
    ------
    ModelError
        If the model folder has no split.
    """
    file = Path(folder) / SPLIT
    if not file.exists():
        raise ModelError(
            f"{Path(folder).name} has no {SPLIT}, which names the tracks it was trained on. Export "
            "the learner again."
        )
    try:
        parts = pd.read_csv(file, dtype=str, keep_default_na=False).map(spreadsheet_plain)
        parts = parts.set_index("track_id")["split"]
    except (ValueError, KeyError, OSError) as error:
        raise damaged_model(file.parent, f"{SPLIT} cannot be read ({short(error)})") from error
    if "test" not in set(parts):  # up to format 4 the tested part was named `valid` here
        parts = parts.replace("valid", "test")
    split = tracks["track_id"].map(parts)
    if split.isna().all():
        warnings.warn(
            "The model was trained on none of these tracks, so all of them are test tracks.",
            MelgenreWarning,
            stacklevel=2,
        )
        split = split.fillna("test")
    return tracks.assign(split=split)
