"""The name of an architecture -> a network with a head for genres.

Learner and classifier both build their networks here, so an exported model is rebuilt as it was.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import safetensors
import safetensors.torch
import timm
import torch
import torchvision
from fastai.torch_core import apply_init
from fastai.vision.learner import (
    add_head,
    create_head,
    create_timm_model,
    create_vision_model,
    default_split,
    model_meta,
)
from torch import nn

from .heads import Columns, SignedRoot, head_with_ood_score, join_heads
from .textures import ArchitectureError, JoinedBackbones, TextureBackbone

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

BUILT_IN = "efficientnet_lite0"
"""The architecture whose first blocks are in this package, with ImageNet weights (see `NOTICE`).

They are timm's `tf_efficientnet_lite0` down to an eighth of the image's size: 55,504 parameters.
"""


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


class ImageClassifier(nn.Module):
    """The network for inference: grey images in; probabilities, OOD scores and embeddings out.

    Parameters
    ----------
    network
        Made by `build_network`: a body and a head.
    mean, std
        Of the three channels; each channel is the grey image.
    multi_label
        Whether a song can have several genres: then each probability is a sigmoid of its own.
    """

    def __init__(
        self,
        network: nn.Sequential,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        multi_label: bool = False,
    ):
        super().__init__()
        self.multi_label = multi_label
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
        logits = self.last_layer(embedding)
        probabilities = logits.sigmoid() if self.multi_label else logits.softmax(dim=1)
        return probabilities, ood_score, embedding


def build_network(
    name: str,
    n_genres: int,
    body: str = "whole",
    *,
    pretrained: bool = False,
    multi_label: bool = False,
) -> nn.Sequential:
    """A network for genres: the architecture's body and a head.

    Parameters
    ----------
    name
        As for `get_architecture`; or several, joined by `+`, for an ensemble of textures.
    body
        `"whole"`: all layers but the last, pooled as fastai does; `"texture"`: `TextureBackbone`,
        with fastai's own head; `"linear"`: the same backbone, and one linear layer on the square
        roots of its features. Several, such as `"texture+texture+linear"`, are an ensemble: these
        heads on each backbone, and the mean of their probabilities.
    pretrained
        With ImageNet weights: downloaded once, or those of `BUILT_IN`.
    multi_label
        Whether a song can have several genres, for the vote of an ensemble.

    Returns
    -------
    torch.nn.Sequential
        Images [shape=(batch, 3, n_mels, columns)] -> logits [shape=(batch, n_genres)].

    Raises
    ------
    ArchitectureError
        If the name is unknown, or the network cannot be cut for textures.
    """
    if "+" in name or "+" in body:
        return _joined_network(name.split("+"), n_genres, body.split("+"), pretrained, multi_label)
    if body != "whole":
        return _texture_network(name, n_genres, body, pretrained)
    architecture = get_architecture(name)
    if isinstance(architecture, str):
        return create_timm_model(architecture, n_genres, default_split, pretrained=pretrained)[0]
    return create_vision_model(architecture, n_genres, pretrained=pretrained)


def _joined_network(names, n_genres, bodies, pretrained, multi_label):
    """An ensemble: several backbones, and a head of each kind on each of them."""
    if "whole" in bodies:
        raise ArchitectureError(
            "An ensemble has networks of textures. Choose a recipe such as 'ensemble', or one "
            "architecture."
        )
    backbones, heads, start = [], [], 0
    for name in names:
        backbones.append(_texture_network(name, n_genres, bodies[0], pretrained)[0])
        width = _texture_width(name)
        for body in bodies:
            head = nn.Sequential(
                Columns(start, start + width), *_texture_head(width, n_genres, body)
            )
            apply_init(head, nn.init.kaiming_normal_)
            heads.append(head)
        start += width
    return nn.Sequential(JoinedBackbones(backbones), join_heads(heads, multi_label=multi_label))


def _texture_head(width, n_genres, body):
    """A head on the features of a `TextureBackbone`."""
    if body == "linear":
        return nn.Sequential(SignedRoot(), nn.BatchNorm1d(width), nn.Linear(width, n_genres))
    return create_head(width, n_genres, ps=[0.5, 0.5], pool=False, concat_pool=False)


def _texture_network(name, n_genres, body, pretrained):
    """A `TextureBackbone` and its head."""
    head = _texture_head(_texture_width(name), n_genres, body)
    if name == BUILT_IN:
        return add_head(_built_in_backbone(pretrained), None, n_genres, head=head)
    architecture = get_architecture(name)
    if isinstance(architecture, str):
        model = timm.create_model(architecture, pretrained=pretrained, num_classes=0)
        return add_head(TextureBackbone(model), None, n_genres, head=head)
    return create_vision_model(
        architecture, n_genres, pretrained=pretrained, cut=TextureBackbone, custom_head=head
    )


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
        As for `build_network`, and its weights have been downloaded; or `BUILT_IN`.
    """
    if "+" in name:
        return "; ".join(dict.fromkeys(map(weights_source, name.split("+"))))
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
