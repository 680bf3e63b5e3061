"""A trained learner -> the folder that is a model, in the Hugging Face hub's conventions."""

import copy
import io
import warnings
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import AdaptiveConcatPool2d, load_learner
from safetensors import SafetensorError
from safetensors.torch import save_file
from scipy.optimize import minimize_scalar
from torch import nn
from torch.nn.functional import cross_entropy

from ..data.mel_settings import MelSettings
from ..files import atomic_folder, sweep
from ..inference.model_folder import (
    CARD,
    CHECKED,
    CONFIG,
    FEWEST_CLIPS,
    FORMAT_VERSION,
    LEARNER,
    ONNX,
    SPLIT,
    WEIGHTS,
    ModelError,
    check_replaceable,
    copy_others,
    damaged_model,
    read_checked,
    read_config,
    write_config,
)
from ..networks import IMAGENET_MEAN, IMAGENET_STD, ImageClassifier, head_with_ood_score
from ..text import printable, spreadsheet_plain, spreadsheet_safe
from .cached_features import extract_features, features_cache
from .learner import RECIPES, discard_checkpoint
from .model_card import model_card


def export_learner(learn, folder, training, result, predictions, *, settings=MelSettings()):
    """Write a trained learner to a folder, in three forms that give the same probabilities.

    `learner.pkl` is for fastai's `load_learner`; `model.safetensors` and `config.json` rebuild
    the network without unpickling anything, and `model.onnx` runs without torch: see
    `melgenre.inference`. `README.md` is the model card. What is exported is a calibrated copy on
    the CPU; the learner stays as it is, where it is. A model that is already in the folder is
    replaced when all files of the new one are written.

    Parameters
    ----------
    learn : fastai.learner.Learner
    folder : str or Path
        New, or of a model that is replaced; other files in it are kept.
    training : dict
        Of `melgenre.training.learner.describe_training`.
    result : dict
        Of `melgenre.evaluation.metrics.evaluate`: its protocol, accuracy and interval.
    predictions : pd.DataFrame
        That the result was taken from; the card shows their confusion matrix.
    settings : MelSettings
        Of the images it learned from.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ModelError
        If the folder exists and is not a model's or cannot be written, or if the network has
        weights that are not finite.
    """
    folder = Path(folder)
    check_replaceable(folder)
    calibration = calibrate(learn)
    model = calibrated_copy(learn.model, calibration["temperature"])
    _check_finite(model)
    config = {
        "format_version": FORMAT_VERSION,
        "architecture": learn.architecture,
        "body": RECIPES[learn.recipe]["body"],
        "genres": list(learn.dls.vocab),
        "mel_settings": asdict(settings),
        "normalisation": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD},
        "calibration": calibration,
        "training": training,
        "result": result,
    }
    try:
        sweep(folder.parent)
        with atomic_folder(folder) as part:
            copy_others(folder, part)
            _write_files(learn, model, config, predictions, part)
    except (OSError, RuntimeError, SafetensorError) as error:  # what the writers raise, disk full
        raise ModelError(
            f"The model cannot be written to {printable(folder)} ({_cause(error)}). Make room or "
            "choose another folder, and run this again."
        ) from error
    discard_checkpoint(learn)
    return folder


def _write_files(learn, model, config, predictions, folder):
    """Write all files of a model into an empty folder."""
    with _learner_of(learn, model):
        learn.export(folder.resolve() / LEARNER)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    _export_onnx(model, config, folder / ONNX)
    split = _split_of(learn, predictions)
    if split is not None:
        split.map(spreadsheet_safe).to_csv(folder / SPLIT, index=False)
    (folder / CARD).write_text(model_card(config, predictions), encoding="utf-8")
    for file in (file for file in folder.iterdir() if file.name in CHECKED):
        file.chmod((folder / CARD).stat().st_mode)  # some writers take the permissions of others
    write_config(folder, config)


def calibrate(learn):
    """Measure by the validation set how often a learner is right, and what it knows.

    Its logits, divided by one number, the temperature, give probabilities that say how often it is
    right (Guo et al., "On calibration of modern neural networks", 2017). What it knows is measured
    by how far the body's features lie from those it learned from, as the head's first batch norm
    remembers them.

    Parameters
    ----------
    learn : fastai.learner.Learner

    Returns
    -------
    dict
        `temperature`; `ood_threshold`: 99 % of the validation clips score below it (None
        where they are fewer than `FEWEST_CLIPS`); `tracks`, how many these are.
    """
    body, head = learn.model.eval()
    items = learn.dls.valid_ds.items
    with torch.no_grad():
        if getattr(learn, "frozen", False):
            features = torch.from_numpy(extract_features(learn, items, features_cache()))
        else:
            images = learn.dls.test_dl(items, num_workers=0)
            features = torch.cat([torch.Tensor(body(batch)) for (batch,) in images])
        device = next(head.parameters()).device
        judged = head_with_ood_score(head, features.float().to(device))
    logits, ood_score = (part.cpu() for part in judged)
    genres = torch.tensor([learn.dls.vocab.o2i[g] for g in items["genre"]])

    def loss(log_temperature):
        return cross_entropy(logits / np.exp(log_temperature), genres).item()

    # More than a factor of e is no calibration but a broken learner, or too few clips.
    temperature = float(np.exp(minimize_scalar(loss, bounds=(-1, 1), method="bounded").x))
    ood_threshold = round(float(np.quantile(ood_score, 0.99)), 4)
    return {
        "temperature": round(temperature, 4),
        "ood_threshold": ood_threshold if len(items) >= FEWEST_CLIPS else None,
        "tracks": len(items),
    }


def _check_finite(model):
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise ModelError(
            "The network has weights that are not finite: its training diverged. Train it again "
            "with a smaller learning rate."
        )


def calibrated_copy(model, temperature):
    """A copy of a network on the CPU, in evaluation mode, whose logits are divided.

    Parameters
    ----------
    model : torch.nn.Sequential
        A body and a head.
    temperature : float

    Returns
    -------
    torch.nn.Sequential
    """
    model = copy.deepcopy(model).cpu().eval()
    last = [layer for layer in model[1].modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter /= temperature
    return model


def _split_of(learn, predictions):
    """`track_id`, `genre` and `split` of the tracks that a learner saw and was judged by."""
    parts = {"train": learn.dls.train_ds.items, "valid": learn.dls.valid_ds.items,
             "test": predictions}  # fmt: skip
    if not all("track_id" in items for items in parts.values()):
        return None  # a learner of somebody's own DataLoaders
    split = pd.concat([items.assign(split=side) for side, items in parts.items()])
    return split[["track_id", "genre", "split"]].drop_duplicates("track_id")


def load_split(folder, tracks):
    """The split that an exported model was trained by.

    Parameters
    ----------
    folder : str or Path
        Of `export_learner`.
    tracks : pd.DataFrame
        Of the same collection, or of another one, of which all tracks are `test` then.

    Returns
    -------
    pd.DataFrame
        The tracks with the column `split`: `train` was learned from, `valid` watched, `test`
        neither; missing where the model's split left a track out.

    Raises
    ------
    ModelError
        If the model's folder has no split.
    """
    file = Path(folder) / SPLIT
    if not file.exists():
        raise ModelError(
            f"{Path(folder).name} has no {SPLIT}, which names the tracks it learned from. Export "
            "the learner again."
        )
    try:
        known = pd.read_csv(file, dtype=str, keep_default_na=False).map(spreadsheet_plain)
        known = known.set_index("track_id")["split"]
    except (ValueError, KeyError, OSError) as error:
        raise damaged_model(file.parent, f"{SPLIT} cannot be read ({_cause(error)})") from error
    split = tracks["track_id"].map(known)
    if split.isna().all():
        print("The model learned from none of these tracks: all of them are new to it.")
        split = split.fillna("test")
    return tracks.assign(split=split)


@contextmanager
def _learner_of(learn, model):
    """Give the learner another network for as long as it is exported."""
    own = learn.model, learn.opt, learn.dls
    learn.model, learn.opt = model, None
    try:
        yield
    finally:
        learn.model, learn.opt, learn.dls = own  # fastai itself empties `dls`, also when it fails


class ConcatPool(nn.Module):
    """fastai's `AdaptiveConcatPool2d(1)` in operations that every ONNX exporter of torch knows."""

    def forward(self, x):
        """Feature maps [shape=(batch, d, height, width)] -> [shape=(batch, 2 d, 1, 1)]."""
        return torch.cat([x.amax((2, 3), keepdim=True), x.mean((2, 3), keepdim=True)], dim=1)


def _export_onnx(model, config, file):
    """The network from grey images to probabilities and ood_score, as ONNX."""
    settings = config["mel_settings"]
    network = ImageClassifier(copy.deepcopy(model), **config["normalisation"]).float().eval()
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, AdaptiveConcatPool2d):  # torch 2.9 to 2.12 cannot export it
                setattr(parent, name, ConcatPool())
    columns = MelSettings(**settings).columns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes to its own developers
        torch.onnx.export(
            network, (torch.rand(2, settings["n_mels"], columns),), file,
            input_names=["images"], output_names=["probabilities", "ood_score"],
            dynamic_shapes={"images": {0: "batch"}}, external_data=False, verbose=False,
        )  # fmt: skip


def load_exported(folder, *, device="cpu"):
    """Bring an exported learner back, by fastai's `load_learner`, with what it says of itself.

    A pickle can run code when it is loaded: load only what you or people you trust have made.

    Parameters
    ----------
    folder : str or Path
        Of `export_learner`.
    device : str
        Where the learner shall predict, as torch names it.

    Returns
    -------
    learn : fastai.learner.Learner
    config : dict
        `genres`, `mel_settings`, `training`, `result`, …

    Raises
    ------
    ModelError
        If nothing was exported there; or if it was pickled by other versions, or is damaged.
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
        warnings.filterwarnings("ignore", message="load_learner")  # said in the docstring
        try:
            learn = load_learner(pickled)
        except Exception as error:  # a pickle of other versions fails in as many ways as there are
            made = config["training"].get("versions", {})
            raise ModelError(
                f"learner.pkl in {folder.name} does not fit these versions of fastai and torch, or "
                f"is damaged ({_cause(error)}). It was made by"
                f" {made}. GenreClassifier.load reads the same model without it; or install those "
                "versions, or export the learner again."
            ) from error
    learn.dls.to(torch.device(device))
    learn.model.to(device)
    return learn, config


def _cause(error):
    """Kind and first line of an error; some have no words."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
