"""A trained learner -> the folder that is a model, in the Hugging Face hub's conventions."""

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from fastai.vision.all import load_learner
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
    `melgenre.classifier`. `README.md` is the model card. The learner is calibrated on the way.

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
    config = {
        "format_version": FORMAT_VERSION,
        "architecture": learn.architecture,
        "body": RECIPES[learn.recipe]["body"],
        "genres": list(learn.dls.vocab),
        "mel_settings": asdict(settings),
        "normalisation": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD},
        "calibration": calibrate(learn),
        "training": training,
        "result": result,
    }
    learn.export(folder.resolve() / LEARNER)
    state = {name: tensor.contiguous().cpu() for name, tensor in learn.model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    _export_onnx(learn.model, config, folder / ONNX)
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    (folder / CARD).write_text(model_card(config, predictions), encoding="utf-8")
    return folder


def calibrate(learn):
    """Make a learner's probabilities say how often it is right, and measure what it knows.

    The logits are divided by one number, the temperature that fits the validation set best (Guo et
    al., "On calibration of modern neural networks", 2017), by way of the last layer's weights, so
    that every exported form is calibrated. What it knows is measured by how far the body's
    features lie from those it learned from, as the head's first batch norm remembers them.

    Parameters
    ----------
    learn : fastai.learner.Learner
        Changed: its answers stay, their probabilities do not.

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
            features = torch.cat([torch.Tensor(body(batch)).cpu() for (batch,) in pictures])
        device = next(head.parameters()).device
        logits, strangeness = judge_features(head, features.float().to(device))
        genres = torch.tensor([learn.dls.vocab.o2i[g] for g in items["genre"]], device=device)

        def loss(log_temperature):
            return cross_entropy(logits / np.exp(log_temperature), genres).item()

        # More than a factor of e is no calibration but a broken learner, or too few clips.
        temperature = float(np.exp(minimize_scalar(loss, bounds=(-1, 1), method="bounded").x))
        last = [layer for layer in head.modules() if isinstance(layer, nn.Linear)][-1]
        for parameter in last.parameters():
            parameter /= temperature
    return {
        "temperature": round(temperature, 4),
        "strangest": round(float(np.quantile(strangeness.cpu(), 0.99)), 4),
        "tracks": len(items),
    }


def _export_onnx(model, config, file):
    """The network from grey pictures to probabilities and strangeness, as ONNX."""
    settings = config["mel_settings"]
    network = PictureClassifier(model, **config["normalisation"]).float().cpu().eval()
    columns = MelSettings(**settings).columns
    device = next(model.parameters()).device
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes to its own developers
        torch.onnx.export(
            network, (torch.rand(2, settings["n_mels"], columns),), file,
            input_names=["pictures"], output_names=["probabilities", "strangeness"],
            dynamic_shapes={"pictures": {0: "batch"}}, external_data=False, verbose=False,
        )  # fmt: skip
    model.to(device)


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


def load_exported(folder):
    """Bring an exported learner back, by fastai's `load_learner`, with what it says of itself.

    A pickle can run code when it is loaded: load only what you or people you trust have made.

    Parameters
    ----------
    folder : str or Path
        Of `export_learner`.

    Returns
    -------
    learn : fastai.learner.Learner
        On the CPU.
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
    return learn, config


def _cause(error):
    """Kind and first line of an error; some have no words."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
