"""A trained learner -> a model folder, in the Hugging Face hub's conventions."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from fastai.vision.all import AdaptiveConcatPool2d, DataLoaders, Learner, TfmdDL, rank_distrib
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from ..data.genres import genres_as_text
from ..data.mel_settings import MelSettings
from ..evaluation.run import Run
from ..files import atomic_folder, sweep
from ..inference.model_folder import (
    CARD,
    CHECKED,
    FORMAT_VERSION,
    LEARNER,
    MULTI_LABEL_VERSION,
    ONNX,
    SPLIT,
    WEIGHTS,
    ModelError,
    check_replaceable,
    copy_others,
    write_config,
)
from ..networks import IMAGENET_MEAN, IMAGENET_STD, ImageClassifier
from ..text import printable, spreadsheet_safe
from .calibration import calibrate, calibrated_copy
from .fit import discard_checkpoint
from .model_card import model_card
from .multi_label import is_multi_label_learner
from .recipes import get_recipe


def export_learner(
    run: Run, folder: str | Path, *, calibration: dict[str, Any] | None = None
) -> Path:
    """Write the learner of a run to a folder, in three forms that give the same probabilities.

    `learner.pkl` is for fastai's `load_learner`; `model.safetensors` and `config.json` rebuild
    the network without unpickling anything, and `model.onnx` runs without torch: see
    `melgenre.inference`. `README.md` is the model card. A calibrated copy on the CPU is exported;
    the learner itself is not changed. A model that is already in the folder is replaced when all
    files of the new one are written. Of several processes, only the first one writes; the others
    do not wait for it.

    Parameters
    ----------
    run
        With `learner`, `result` and `predictions`; the card shows their confusion matrix.
    folder
        New, or with a model that is replaced; other files in it are kept.
    calibration
        Of `calibrate` for another learner, where this one has no clips of its own to hold out; its
        `how` stands in the card. By default, the run's learner is calibrated.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ModelError
        If the folder exists and is not a model folder or cannot be written, or if the network has
        weights that are not finite.
    """
    folder, learn = Path(folder), run.learner
    if rank_distrib():
        return folder
    check_replaceable(folder)
    calibration = calibration or calibrate(learn)
    model = calibrated_copy(learn.model, calibration["temperature"])
    _check_finite(model)
    multi_label = is_multi_label_learner(learn)
    config = {
        # Versions of melgenre that know no multi-label models read all others.
        "format_version": MULTI_LABEL_VERSION if multi_label else FORMAT_VERSION,
        "architecture": run.architecture,
        "body": get_recipe(run.recipe).body,
        "genres": list(learn.dls.vocab),
        "multi_label": multi_label,
        "mel_settings": run.mel_settings,
        "normalisation": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD},
        "calibration": calibration,
        "training": run.provenance(),
        "result": run.result,
    }
    try:
        sweep(folder.parent)
        with atomic_folder(folder) as part:
            copy_others(folder, part)
            _write_files(learn, model, config, run.predictions, part)
    except (OSError, RuntimeError, SafetensorError) as error:  # what the writers raise, disk full
        cause = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise ModelError(
            f"The model cannot be written to {printable(folder)} ({cause}). Make room or choose "
            "another folder, and run this again."
        ) from error
    discard_checkpoint(learn)
    return folder


def _write_files(learn, model, config, predictions, folder):
    """Write all files of a model to an empty folder."""
    with _prepared_for_export(learn, model):
        learn.export(folder.resolve() / LEARNER)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    _export_onnx(model, config, folder / ONNX)
    split = _split_of(learn, predictions)
    if split is not None:
        split.map(spreadsheet_safe).to_csv(folder / SPLIT, index=False)
    (folder / CARD).write_text(model_card(config, predictions), encoding="utf-8")
    for file in (file for file in folder.iterdir() if file.name in CHECKED):
        file.chmod((folder / CARD).stat().st_mode)  # some writers set narrower permissions
    write_config(folder, config)


def _check_finite(model):
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise ModelError(
            "The network has weights that are not finite: its training diverged. Train it again "
            "with a smaller learning rate."
        )


def _split_of(learn, predictions):
    """`track_id`, `genre` and `split` of the tracks that a learner was trained and tested on."""
    parts = {
        "train": learn.dls.train_ds.items,
        "test": predictions,
        "valid": learn.dls.valid_ds.items,  # the test tracks again where the split has no `valid`
    }
    if not all("track_id" in items for items in parts.values()):
        return None  # a learner of other DataLoaders than ours
    split = pd.concat([items.assign(split=part) for part, items in parts.items()])
    split = split[["track_id", "genre", "split"]].drop_duplicates("track_id")
    return genres_as_text(split)


@contextmanager
def _prepared_for_export(learn: Learner, model: nn.Module) -> Iterator[None]:
    """Give the learner the network to export; the pickle holds neither tables nor our classes."""
    own = learn.model, learn.opt, learn.dls, learn.training_run
    learn.model, learn.opt, learn.training_run = model, None, None
    plain = [dl.new(cls=TfmdDL) for dl in learn.dls.loaders]
    learn.dls = DataLoaders(*plain, path=learn.dls.path, device=learn.dls.device)
    try:
        yield
    finally:
        # fastai itself empties `dls`, also when it fails.
        learn.model, learn.opt, learn.dls, learn.training_run = own


class ConcatPool(nn.Module):
    """fastai's `AdaptiveConcatPool2d(1)` in operations that every ONNX exporter of torch has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Feature maps [shape=(batch, d, height, width)] -> [shape=(batch, 2 d, 1, 1)]."""
        return torch.cat([x.amax((2, 3), keepdim=True), x.mean((2, 3), keepdim=True)], dim=1)


def _export_onnx(model: nn.Module, config: dict[str, Any], file: Path) -> None:
    """Write the network from grey images to probabilities, OOD scores and embeddings as ONNX."""
    settings = MelSettings(**config["mel_settings"])
    network = ImageClassifier(
        copy.deepcopy(model), **config["normalisation"], multi_label=config["multi_label"]
    )
    network.float().eval()
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, AdaptiveConcatPool2d):  # torch 2.9 to 2.12 cannot export it
                setattr(parent, name, ConcatPool())
    example = torch.rand(2, settings.n_mels, settings.columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes to its own developers
        torch.onnx.export(
            network,
            (example,),
            file,
            input_names=["images"],
            output_names=["probabilities", "ood_score", "embedding"],
            dynamic_shapes={"images": {0: "batch"}},
            external_data=False,
            verbose=False,
        )
