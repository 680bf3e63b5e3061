"""The name of an architecture -> a network with a head for genres.

Learner and classifier both build their networks here, so an exported model is rebuilt as it was.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import safetensors
import safetensors.torch
import timm
import torch
import torchvision
from fastai.vision.learner import (
    add_head,
    create_head,
    create_timm_model,
    create_vision_model,
    default_split,
    model_meta,
)
from timm.models import create_feature_extractor, get_graph_node_names
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from .errors import MelgenreError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

BUILT_IN = "efficientnet_lite0"
"""The architecture whose first blocks are in this package, with ImageNet weights (see `NOTICE`).

They are timm's `tf_efficientnet_lite0` down to an eighth of the image's size: 55,504 parameters.
"""


class ArchitectureError(MelgenreError, ValueError):
    """An architecture that is unknown or does not accept these images."""


def get_architecture(name: str) -> Callable[..., nn.Module] | str:
    """The architecture in the form that fastai's `vision_learner` accepts.

    Parameters
    ----------
    name
        Any convolutional classifier of torchvision (`resnet34`, `efficientnet_b0`, …) or, where
        torchvision has none of that name, of timm (`resnet34d`, `convnext_nano.d1h_in1k`, …).

    Returns
    -------
    callable or str
        torchvision's function, or timm's name.

    Raises
    ------
    ArchitectureError
        If neither library has it, or if it is `BUILT_IN`, which is no whole network.

    Examples
    --------
    >>> get_architecture("resnet34").__name__
    'resnet34'
    >>> get_architecture("resnet34d")
    'resnet34d'
    """
    if name == BUILT_IN:
        raise ArchitectureError(
            f"Only the first blocks of {BUILT_IN} are in melgenre. Use it with a recipe for "
            "textures, such as 'texture'; or name the whole network of timm, tf_efficientnet_lite0."
        )
    if name in torchvision.models.list_models(torchvision.models):
        return torchvision.models.get_model_builder(name)
    if timm.is_model(name):
        return name
    available = torchvision.models.list_models(torchvision.models) + timm.list_models()
    similar = ", ".join(difflib.get_close_matches(name, available, n=3)) or "resnet34, resnet50"
    raise ArchitectureError(
        f"Neither torchvision nor timm has an architecture {name!r}. Similar names: {similar}."
    )


class TextureBackbone(nn.Module):
    """The early layers of a network, with statistics pooling over time in zones of frequency.

    The last layers of a network for photographs detect objects; genre shows in the textures that
    the layers before them detect. Two depths are used: the layers down to a quarter of the image's
    size, and, on the image enlarged twice, the layers down to an eighth. Of each feature map the
    mean and the standard deviation over time are kept, in 16 zones from high to low frequency:
    what a clip sounds like, not when.

    Textural descriptors of zones of a spectrogram classify music in Costa, Oliveira, Koerich and
    Gouyon, "Comparing textural features for music genre classification" (IJCNN 2012). Statistics
    of feature maps describe textures in Gatys, Ecker and Bethge, "Texture synthesis using
    convolutional neural networks" (2015).

    Parameters
    ----------
    model
        A convolutional classifier of torchvision or timm. The backbone shares its first layers.
    """

    zones = 16

    def __init__(self, model: nn.Module):
        super().__init__()
        self.fine, self.coarse = _first_stages(model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images [shape=(batch, 3, n_mels, columns)] -> textures [shape=(batch, d)]."""
        return torch.cat([self.pool_statistics(one.float()) for one in self.maps(x)], dim=1)

    def maps(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The feature maps of both depths of images [shape=(batch, 3, n_mels, columns)]."""
        enlarged = interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.fine(x), self.coarse(self.fine(enlarged))

    def pool_statistics(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [shape=(batch, channels, ...)] -> [shape=(batch, 2 * channels * zones)].

        First the means of all channels and zones, then the standard deviations.
        """
        mean = adaptive_avg_pool2d(maps, (self.zones, 1))
        mean_square = adaptive_avg_pool2d(maps**2, (self.zones, 1))
        std = (mean_square - mean**2).clamp(min=1e-6).sqrt()
        return torch.cat([mean, std], dim=1).flatten(1)


def _first_stages(model):
    """A network's layers down to a quarter of the image's size, and on to an eighth.

    torchvision's feature extractor (by way of timm, which adds what its own layers need) runs the
    network and returns the maps after each layer; the last layer of each size ends a stage. The
    stages are plain modules, which any version of torch can load, so it is checked that the layers
    in sequence give the same maps as the network.
    """
    side = 128
    image = torch.linspace(-2, 2, 3 * side**2).view(1, 3, side, side)
    layers = dict(_flat_layers(model.eval()))
    nodes = set.intersection(*map(set, get_graph_node_names(model)))
    traced = [name for name in layers if any(f"{n}.".startswith(f"{name}.") for n in nodes)]
    with torch.no_grad():
        maps = create_feature_extractor(model, traced)(image)
        last = {}  # reduction of the image's size -> name of the last layer
        for name in traced:
            if maps[name].ndim == 4 and maps[name].shape[2] == maps[name].shape[3]:
                last[side // maps[name].shape[3]] = name
        if not {4, 8} <= last.keys():
            raise ArchitectureError("No feature maps of a quarter and an eighth of the image.")
        fine_end, coarse_end = (list(layers).index(last[reduction]) + 1 for reduction in (4, 8))
        fine = nn.Sequential(*list(layers.values())[:fine_end])
        coarse = nn.Sequential(*list(layers.values())[fine_end:coarse_end])
        for ours, name in (fine(image), last[4]), (coarse(fine(image)), last[8]):
            if not torch.allclose(ours, maps[name], atol=1e-3 * maps[name].std().item()):
                raise ArchitectureError("The network does not run its layers one after another.")
    return fine, coarse


def _flat_layers(model) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of a network's children, and of the children of a sequence."""
    for name, child in model.named_children():
        if isinstance(child, nn.Sequential):
            yield from ((f"{name}.{below}", layer) for below, layer in child.named_children())
        else:
            yield name, child


def head_with_ood_score(
    head: nn.Sequential, features: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output of a fastai head or of its first layers, and the out-of-distribution score.

    The score is the root mean square of the features, standardised by the statistics of the head's
    first batch norm: a Mahalanobis distance with a diagonal covariance (Lee et al., "A simple
    unified framework for detecting out-of-distribution samples", 2018).

    Parameters
    ----------
    head
        In evaluation mode. Its first batch norm has the statistics of the training features.
    features : torch.Tensor [shape=(batch, ...)]
        The body's features.

    Returns
    -------
    output : torch.Tensor [shape=(batch, n)]
        Of the last of these layers: the logits, for a whole head.
    ood_score : torch.Tensor [shape=(batch,)]
        About 1 for images like those of the training, more for others.
    """
    ood_score, x = None, features
    for layer in head:
        if ood_score is None and isinstance(layer, nn.BatchNorm1d):
            standardised = (x - layer.running_mean) / (layer.running_var + layer.eps).sqrt()
            ood_score = standardised.square().mean(dim=1).sqrt()
        x = layer(x)
    return x, ood_score


class ImageClassifier(nn.Module):
    """The network for inference: grey images in; probabilities, OOD scores and embeddings out.

    Parameters
    ----------
    network
        Made by `build_network`: a body and a head.
    mean, std
        Of the three channels; each channel is the grey image.
    """

    def __init__(self, network: nn.Sequential, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.body, head = network
        self.head, self.last_layer = head[:-1], head[-1]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Predict images.

        Parameters
        ----------
        images : torch.Tensor [shape=(batch, n_mels, columns)]
            Between 0 and 1.

        Returns
        -------
        probabilities : torch.Tensor [shape=(batch, n_genres)]
        ood_score : torch.Tensor [shape=(batch,)]
        embedding : torch.Tensor [shape=(batch, d)]
            The input of the last layer.
        """
        features = self.body((images[:, None] - self.mean) / self.std)
        embedding, ood_score = head_with_ood_score(self.head, features)
        return self.last_layer(embedding).softmax(dim=1), ood_score, embedding


def build_network(
    name: str, n_genres: int, body: str = "whole", *, pretrained: bool = False
) -> nn.Sequential:
    """A network for genres: the architecture's body and a head.

    Parameters
    ----------
    name
        As for `get_architecture`.
    body
        `"whole"`: all layers but the last, pooled as fastai does; `"texture"`: `TextureBackbone`,
        with fastai's own head; `"linear"`: the same backbone, and one linear layer on the square
        roots of its features.
    pretrained
        With ImageNet weights: downloaded once, or those of `BUILT_IN`.

    Returns
    -------
    torch.nn.Sequential
        Images [shape=(batch, 3, n_mels, columns)] -> logits [shape=(batch, n_genres)].

    Raises
    ------
    ArchitectureError
        If the name is unknown, or the network cannot be cut for textures.
    """
    if body != "whole":
        return _texture_network(name, n_genres, body, pretrained)
    architecture = get_architecture(name)
    if isinstance(architecture, str):
        return create_timm_model(architecture, n_genres, default_split, pretrained=pretrained)[0]
    return create_vision_model(architecture, n_genres, pretrained=pretrained)


def _texture_network(name, n_genres, body, pretrained):
    """A `TextureBackbone` and its head."""
    width = _texture_width(name)
    if body == "linear":
        head = nn.Sequential(SignedRoot(), nn.BatchNorm1d(width), nn.Linear(width, n_genres))
    else:
        head = create_head(width, n_genres, ps=[0.5, 0.5], pool=False, concat_pool=False)
    if name == BUILT_IN:
        return add_head(_built_in_backbone(pretrained), None, n_genres, head=head)
    architecture = get_architecture(name)
    if isinstance(architecture, str):
        model = timm.create_model(architecture, pretrained=pretrained, num_classes=0)
        return add_head(TextureBackbone(model), None, n_genres, head=head)
    return create_vision_model(
        architecture, n_genres, pretrained=pretrained, cut=TextureBackbone, custom_head=head
    )


class SignedRoot(nn.Module):
    """The square root of each feature's size, with its sign: large values count for less."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features [shape=(batch, d)] -> [shape=(batch, d)]."""
        return x * (x.abs() + 1e-6).rsqrt()  # with a finite gradient at 0


def _built_in_backbone(pretrained):
    """The blocks whose weights are in this package."""
    backbone = TextureBackbone(timm.create_model("tf_efficientnet_lite0", num_classes=0))
    if pretrained:
        try:
            backbone.load_state_dict(safetensors.torch.load(built_in_weights().read_bytes()))
        except (OSError, safetensors.SafetensorError, RuntimeError) as error:
            raise ArchitectureError(
                f"The weights of {BUILT_IN} in melgenre are damaged "
                f"({str(error).splitlines()[0]}). Install melgenre again."
            ) from error
    return backbone


def built_in_weights() -> Traversable:
    """The file in this package with the weights of `BUILT_IN`."""
    return files("melgenre") / "weights" / f"{BUILT_IN}.safetensors"


def _texture_width(name):
    """Number of features of a `TextureBackbone` of this architecture."""
    if name == BUILT_IN:
        return 2048
    architecture = get_architecture(name)
    try:
        model = timm.create_model(name) if isinstance(architecture, str) else architecture()
        with torch.no_grad():
            return TextureBackbone(model)(torch.zeros(1, 3, 128, 64)).shape[1]
    except Exception as error:  # each architecture fails in its own way to be traced and cut
        raise ArchitectureError(
            f"{name} cannot be cut for textures: its layers do not give feature maps of a quarter "
            "and an eighth of the image's size one after another. Choose a convolutional network, "
            "such as resnet34 or efficientnet_b0, or the recipe 'fine-tune'."
        ) from error


def check_input_size(name: str, network: nn.Module, height: int, width: int) -> None:
    """Raise `ArchitectureError` if the network does not accept images of this size in pixels."""
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, height, width, device=device))
    except Exception as error:  # each architecture rejects a size in its own way
        raise ArchitectureError(
            f"{name} does not take images of {height} x {width} ({str(error).splitlines()[0]}). "
            "Choose a convolutional network, such as resnet34 or efficientnet_b0."
        ) from error


def weights_source(name: str) -> str:
    """Which ImageNet weights a pretrained learner starts from, by the content of their file.

    torchvision puts the first digits of a file's SHA-256 into its name, so substitute weights
    under the name of torchvision's are detected.

    Parameters
    ----------
    name
        As for `get_architecture`, and its weights have been downloaded; or `BUILT_IN`.
    """
    if name == BUILT_IN:
        digest = hashlib.sha256(built_in_weights().read_bytes()).hexdigest()
        return f"EfficientNet-Lite0's first blocks, in melgenre (Apache-2.0, sha256 {digest[:8]})"
    architecture = get_architecture(name)
    if isinstance(architecture, str):
        return f"timm {timm.models.get_pretrained_cfg(name).hf_hub_id or name}"
    weights = torchvision.models.get_model_weights(name)
    # fastai uses torchvision's default for the architectures of `model_meta`, else the first.
    chosen = weights.DEFAULT if architecture in model_meta else weights["IMAGENET1K_V1"]
    file = Path(torch.hub.get_dir(), "checkpoints", chosen.url.rpartition("/")[2])
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    expected = re.search(r"-([0-9a-f]{8})\.", file.name)
    if expected and digest.startswith(expected[1]):
        return f"torchvision {weights.__name__}.{chosen.name}"
    return f"substitute for torchvision {weights.__name__}.{chosen.name} (sha256 {digest[:8]})"
