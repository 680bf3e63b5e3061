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
from fastai.vision.learner import (
    create_head,
    create_timm_model,
    create_vision_model,
    default_split,
    model_meta,
)
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from .errors import MelgenreError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ArchitectureError(MelgenreError, ValueError):
    """An architecture that is unknown or does not take our images."""


def get_architecture(name):
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


class TextureBackbone(nn.Module):
    """A network cut early, that says what a clip's texture is in each zone of frequency.

    The last layers of a network for photographs look for objects; genre is in the layers before
    them. Two of these are used: those at a quarter of the image's size, and, of the image made
    twice as large, those at an eighth. Of each feature map the mean and the standard deviation
    over time are kept, in 16 zones from high to low: what it sounds like, not when.

    Statistics of feature maps are how textures are told apart and made (Gatys, Ecker and Bethge,
    "Texture synthesis using convolutional neural networks", 2015).

    Parameters
    ----------
    model : torch.nn.Module
        A convolutional classifier of torchvision's; its first layers become part of the body.
    """

    zones = 16

    def __init__(self, model):
        super().__init__()
        layers = [
            layer
            for child in model.children()
            for layer in (child if isinstance(child, nn.Sequential) else [child])
        ]
        ends = {}  # how often the image was halved -> number of layers until then
        x, model = torch.zeros(1, 3, 64, 64), model.eval()
        with torch.no_grad():
            for number, layer in enumerate(layers, start=1):
                x = layer(x)
                if x.ndim != 4 or x.shape[-1] < 64 // 8:
                    break
                ends[64 // x.shape[-1]] = number
        if not {4, 8} <= ends.keys():
            raise ArchitectureError("has no layers at a quarter and an eighth of the image")
        self.fine = nn.Sequential(*layers[: ends[4]])
        self.coarse = nn.Sequential(*layers[ends[4] : ends[8]])

    def forward(self, x):
        """Images [shape=(batch, 3, n_mels, columns)] -> textures [shape=(batch, d)]."""
        doubled = interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        maps = self.fine(x), self.coarse(self.fine(doubled))
        return torch.cat([self._statistics(one.float()) for one in maps], dim=1)

    def _statistics(self, maps):
        mean = adaptive_avg_pool2d(maps, (self.zones, 1))
        square = adaptive_avg_pool2d(maps**2, (self.zones, 1))
        spread = (square - mean**2).clamp(min=1e-6).sqrt()
        return torch.cat([mean, spread], dim=1).flatten(1)


def head_with_ood_score(head, features):
    """What a fastai head makes of the body's features, and how strange these are to it.

    Parameters
    ----------
    head : torch.nn.Sequential
        In evaluation mode. Its first batch norm remembers the features that it learned from.
    features : torch.Tensor [shape=(batch, ...)]

    Returns
    -------
    logits : torch.Tensor [shape=(batch, n_genres)]
    ood_score : torch.Tensor [shape=(batch,)]
        Root mean square of the standardised features: about 1 for what it learned from.
    """
    ood_score, x = None, features
    for layer in head:
        if ood_score is None and isinstance(layer, nn.BatchNorm1d):
            standard = (x - layer.running_mean) / (layer.running_var + layer.eps).sqrt()
            ood_score = standard.square().mean(dim=1).sqrt()
        x = layer(x)
    return x, ood_score


class ImageClassifier(nn.Module):
    """A network as it is used: grey images in, probabilities and ood_score out.

    Parameters
    ----------
    network : torch.nn.Sequential
        Of `build_network`: a body and a head.
    mean, std : sequence of float
        Of the three channels, which all are the image.
    """

    def __init__(self, network, mean, std):
        super().__init__()
        self.body, self.head = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images):
        """Images [shape=(batch, n_mels, columns)] between 0 and 1 -> (batch, n), (batch,)."""
        logits, ood_score = head_with_ood_score(
            self.head, self.body((images[:, None] - self.mean) / self.std)
        )
        return logits.softmax(dim=1), ood_score


def build_network(name, n_genres, body="whole", *, pretrained=False):
    """A network for genres: the architecture's body under a head.

    Parameters
    ----------
    name : str
        As for `get_architecture`.
    n_genres : int
    body : str
        `"whole"`: all layers but the last, pooled as fastai does; `"texture"`: `TextureBackbone`,
        under fastai's own head.
    pretrained : bool
        With ImageNet weights, downloaded once.

    Returns
    -------
    torch.nn.Module
        Images [shape=(batch, 3, n_mels, columns)] -> logits [shape=(batch, n_genres)].

    Raises
    ------
    ArchitectureError
        If the name is unknown, or the network cannot be cut for textures.
    """
    architecture = get_architecture(name)
    if body == "texture":
        width = _texture_width(name)
        head = create_head(width, n_genres, ps=[0.5, 0.5], pool=False, concat_pool=False)
        return create_vision_model(
            architecture, n_genres, pretrained=pretrained, cut=TextureBackbone, custom_head=head
        )
    if isinstance(architecture, str):
        return create_timm_model(architecture, n_genres, default_split, pretrained=pretrained)[0]
    return create_vision_model(architecture, n_genres, pretrained=pretrained)


def _texture_width(name):
    """How many numbers a `TextureBackbone` of this architecture says of an image."""
    architecture = get_architecture(name)
    try:
        if isinstance(architecture, str):
            raise ArchitectureError("it is timm's, and this is for torchvision's")
        body = TextureBackbone(architecture(weights=None))
        with torch.no_grad():
            return body(torch.zeros(1, 3, 128, 64)).shape[1]
    except Exception as error:  # a foreign network fails in its own way
        raise ArchitectureError(
            f"{name} cannot be cut for textures ({str(error).splitlines()[0]}). Use a network of "
            "torchvision's such as resnet34 or resnet50, or the recipe 'fine-tune'."
        ) from error


def check_input_size(name, network, height, width):
    """Raise `ArchitectureError` if the network does not take images of this size."""
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, height, width, device=device))
    except Exception as error:
        raise ArchitectureError(
            f"{name} does not take images of {height} x {width} ({str(error).splitlines()[0]}). "
            "Choose a convolutional network, such as resnet34 or efficientnet_b0."
        ) from error


def weights_source(name):
    """Which ImageNet weights a pretrained learner starts from, told from the file itself.

    torchvision names its files by the first digits of their SHA-256, so weights that are not
    torchvision's own, but lie under that name, are found out.

    Parameters
    ----------
    name : str
        As for `get_architecture`; its weights are on the disk.

    Returns
    -------
    str
    """
    architecture = get_architecture(name)
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
    return f"substitute for torchvision {weights.__name__}.{chosen.name} (sha256 {digest[:8]})"
