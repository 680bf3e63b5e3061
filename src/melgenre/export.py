"""A trained learner -> the folder that is a model, in the Hugging Face hub's conventions."""

import copy
import json
import warnings
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from fastai.vision.all import AdaptiveConcatPool2d, load_learner
from huggingface_hub import ModelCardData
from safetensors.torch import save_file
from scipy.optimize import minimize_scalar
from torch import nn
from torch.nn.functional import cross_entropy

from .evaluation import confusion_counts
from .frozen import body_features, feature_folder
from .learner import RECIPES
from .melspectrogram import MelSettings
from .model_folder import (
    CARD,
    CONFIG,
    FORMAT_VERSION,
    LEARNER,
    ONNX,
    WEIGHTS,
    ModelError,
    read_config,
)
from .networks import IMAGENET_MEAN, IMAGENET_STD, PictureClassifier, judge_features


def export_learner(learn, folder, training, result, predictions, *, settings=MelSettings()):
    """Write a trained learner to a folder, in three forms that give the same probabilities.

    `learner.pkl` is for fastai's `load_learner`; `model.safetensors` and `config.json` rebuild
    the network without unpickling anything, and `model.onnx` runs without torch: see
    `melgenre.classifier`. `README.md` is the model card. What is exported is a calibrated copy on
    the CPU; the learner stays as it is, where it is.

    Parameters
    ----------
    learn : fastai.learner.Learner
    folder : str or Path
        Made where it is missing.
    training : dict
        Of `melgenre.learner.describe_training`.
    result : dict
        Of `melgenre.evaluation.score`: the protocol, accuracy and interval it is known to have.
    predictions : pd.DataFrame
        That the result was taken from; the card shows their confusion matrix.
    settings : MelSettings
        Of the pictures it learned from.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    calibration = calibrate(learn)
    model = calibrated_copy(learn.model, calibration["temperature"])
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
    with _learner_of(learn, model):
        learn.export(folder.resolve() / LEARNER)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, folder / WEIGHTS)
    _export_onnx(model, config, folder / ONNX)
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    (folder / CARD).write_text(model_card(config, predictions), encoding="utf-8")
    return folder


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
        `temperature`; `strangest`: 99 % of the validation clips are less strange than this;
        `tracks`, how many these are.
    """
    body, head = learn.model.eval()
    items = learn.dls.valid_ds.items
    with torch.no_grad():
        if getattr(learn, "frozen", False):
            features = torch.from_numpy(body_features(learn, items, feature_folder()))
        else:
            pictures = learn.dls.test_dl(items, num_workers=0)
            features = torch.cat([torch.Tensor(body(batch)) for (batch,) in pictures])
        device = next(head.parameters()).device
        judged = judge_features(head, features.float().to(device))
    logits, strangeness = (part.cpu() for part in judged)
    genres = torch.tensor([learn.dls.vocab.o2i[g] for g in items["genre"]])

    def loss(log_temperature):
        return cross_entropy(logits / np.exp(log_temperature), genres).item()

    # More than a factor of e is no calibration but a broken learner, or too few clips.
    temperature = float(np.exp(minimize_scalar(loss, bounds=(-1, 1), method="bounded").x))
    return {
        "temperature": round(temperature, 4),
        "strangest": round(float(np.quantile(strangeness, 0.99)), 4),
        "tracks": len(items),
    }


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


@contextmanager
def _learner_of(learn, model):
    """Give the learner another network for as long as it is exported."""
    own = learn.model, learn.opt
    learn.model, learn.opt = model, None
    try:
        yield
    finally:
        learn.model, learn.opt = own


class ConcatPool(nn.Module):
    """fastai's `AdaptiveConcatPool2d(1)` in operations that every ONNX exporter of torch knows."""

    def forward(self, x):
        """Feature maps [shape=(batch, d, height, width)] -> [shape=(batch, 2 d, 1, 1)]."""
        return torch.cat([x.amax((2, 3), keepdim=True), x.mean((2, 3), keepdim=True)], dim=1)


def _export_onnx(model, config, file):
    """The network from grey pictures to probabilities and strangeness, as ONNX."""
    settings = config["mel_settings"]
    network = PictureClassifier(copy.deepcopy(model), **config["normalisation"]).float().eval()
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, AdaptiveConcatPool2d):  # torch 2.9 to 2.12 cannot export it
                setattr(parent, name, ConcatPool())
    columns = MelSettings(**settings).columns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes to its own developers
        torch.onnx.export(
            network, (torch.rand(2, settings["n_mels"], columns),), file,
            input_names=["pictures"], output_names=["probabilities", "strangeness"],
            dynamic_shapes={"pictures": {0: "batch"}}, external_data=False, verbose=False,
        )  # fmt: skip


CARD_TEXT = """
# {architecture} for music genres

Made by melgenre. It looks at the mel-spectrogram of thirty
seconds of sound and names one of {n_genres} genres: {genres}.

| | |
| --- | --- |
| accuracy | **{accuracy:.1f} %**, 95 % interval {low:.1f} to {high:.1f}, of {tracks} tracks |
| protocol | {protocol} |
| learned from | {train_tracks} tracks of {collection} |
| recipe, seed | {recipe}, {seed} |
| starting weights | {weights} |
| temperature | {temperature}, fitted on {valid_tracks} tracks |

The interval is a bootstrap over artists, where they are known. What the clips judged were called:

{matrix}

## What it is for, and what not

It tells apart the genres it learned, as they sounded in the clips it learned from. Genres are
conventions, and a collection's labels are one person's: GTZAN's are known to hold mistakes. It must
not be used to decide about people, payments or what is heard, nor as a measure of music. Sound
that lies further from what it learned than 99 % of its validation clips (a strangeness above
{strangest}), such as silence, noise or speech, is answered with "unsure".

## Licence

The weights it started from ({weights}) come with their own terms: ImageNet's pictures are for
research. The recordings it learned from belong to their owners, and none is in this folder.
"""


def model_card(config, predictions):
    """The README of an exported model, in Markdown with the hub's header.

    Parameters
    ----------
    config : dict
        Of the folder's `config.json`.
    predictions : pd.DataFrame

    Returns
    -------
    str
    """
    training, result, calibration = config["training"], config["result"], config["calibration"]
    header = ModelCardData(
        library_name="melgenre", license="other", license_name="weights-of-their-origin",
        tags=["music", "audio-classification", "music-genre", "fastai", "mel-spectrogram"],
        pipeline_tag="audio-classification",
    )  # fmt: skip
    low, high = (100 * bound for bound in result["interval"])
    text = CARD_TEXT.format(
        architecture=config["architecture"], n_genres=len(config["genres"]),
        genres=", ".join(config["genres"]), accuracy=100 * result["accuracy"], low=low, high=high,
        tracks=result["tracks"], protocol=result["protocol"],
        train_tracks=training.get("train_tracks", "?"), collection=training.get("collection"),
        recipe=training.get("recipe"), seed=training.get("seed"), weights=training["weights"],
        temperature=calibration["temperature"], strangest=calibration["strangest"],
        valid_tracks=calibration["tracks"], matrix=_markdown(confusion_counts(predictions)),
    )  # fmt: skip
    return f"---\n{header.to_yaml()}\n---\n{text}"


def _markdown(counts):
    """A confusion matrix as a table in Markdown."""
    names = [str(name).replace("|", "\\|") for name in counts.index]
    lines = ["| is \\ called | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for name, row in zip(names, counts.to_numpy().tolist(), strict=True):
        lines.append(f"| {name} | " + " | ".join(str(n) if n else "" for n in row) + " |")
    return "\n".join(lines)


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
    FileNotFoundError
        If nothing was exported there; the message says how to.
    ModelError
        If it was pickled by other versions, or is damaged.
    """
    folder = Path(folder)
    if not (folder / LEARNER).exists() or not (folder / CONFIG).exists():
        raise FileNotFoundError(
            f"No exported learner in {folder.name!r}: it has no learner.pkl with a config.json. "
            "Run notebook 04 (resnet34) or 05 (resnet50) first; on Colab, with the same Drive."
        )
    config = read_config(folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="load_learner")  # said in the docstring
        try:
            learn = load_learner(folder / LEARNER)
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
