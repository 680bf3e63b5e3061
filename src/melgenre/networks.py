"""The name of an architecture -> a network with a head for genres.

Learner and classifier both build their networks here, so an exported model is rebuilt as it was.
"""

import difflib
import hashlib
import re
from pathlib import Path

import timm
import torch
import torchvision
from fastai.vision.learner import create_timm_model, create_vision_model, default_split, model_meta

# Of the exported folder: the learner writes it, the classifier reads up to it.
FORMAT_VERSION = 1
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ArchitectureError(ValueError):
    """An architecture that is unknown or does not take our pictures."""


def find_architecture(name):
    """What fastai's `vision_learner` wants for a name: torchvision's function, or timm's name.

    Parameters
    ----------
    name : str
        Any convolutional classifier of torchvision (`resnet34`, `efficientnet_b0`, …) or, where
        torchvision has none of that name, of timm (`resnet34d`, `convnext_nano.d1h_in1k`, …).

    Returns
    -------
    callable or str

    Raises
    ------
    ArchitectureError
        If neither has it.
    """
    if name in torchvision.models.list_models(torchvision.models):
        return torchvision.models.get_model_builder(name)
    if timm.is_model(name):
        return name
    known = torchvision.models.list_models(torchvision.models) + timm.list_models()
    like = ", ".join(difflib.get_close_matches(name, known, n=3)) or "resnet34, resnet50"
    raise ArchitectureError(
        f"Neither torchvision nor timm has an architecture {name!r}. Similar names: {like}."
    )


def build_network(name, n_genres):
    """An untrained network: the architecture's body under fastai's head.

    Parameters
    ----------
    name : str
        As for `find_architecture`.
    n_genres : int

    Returns
    -------
    torch.nn.Module
        Pictures [shape=(batch, 3, n_mels, columns)] -> logits [shape=(batch, n_genres)].
    """
    architecture = find_architecture(name)
    if isinstance(architecture, str):
        return create_timm_model(architecture, n_genres, default_split, pretrained=False)[0]
    return create_vision_model(architecture, n_genres, pretrained=False)


def check_takes_pictures(name, network, height, width):
    """Raise `ArchitectureError` if the network does not take pictures of this size."""
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, height, width, device=device))
    except Exception as error:
        raise ArchitectureError(
            f"{name} does not take pictures of {height} x {width} ({str(error).splitlines()[0]}). "
            "Choose a convolutional network, such as resnet34 or efficientnet_b0."
        ) from error


def describe_imagenet_weights(name):
    """Which ImageNet weights a pretrained learner starts from, told from the file itself.

    torchvision names its files by the first digits of their SHA-256, so weights that are not
    torchvision's own, but lie under that name, are found out.

    Parameters
    ----------
    name : str
        As for `find_architecture`; its weights are on the disk.

    Returns
    -------
    str
    """
    architecture = find_architecture(name)
    if isinstance(architecture, str):
        return f"timm {timm.models.get_pretrained_cfg(name).hf_hub_id or name}"
    weights = torchvision.models.get_model_weights(name)
    # fastai asks for torchvision's default where it knows the architecture, else for the first.
    chosen = weights.DEFAULT if architecture in model_meta else weights["IMAGENET1K_V1"]
    file = Path(torch.hub.get_dir(), "checkpoints", chosen.url.rpartition("/")[2])
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    promised = re.search(r"-([0-9a-f]{8})\.", file.name)
    if promised and digest.startswith(promised[1]):
        return f"torchvision {weights.__name__}.{chosen.name}"
    return f"stand-in for torchvision {weights.__name__}.{chosen.name} (sha256 {digest[:8]})"
