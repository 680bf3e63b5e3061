"""Textures: the early layers of a network for photographs, and statistics of their feature maps."""

from collections.abc import Iterator

import torch
from timm.models import create_feature_extractor, get_graph_node_names
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from .errors import MelgenreError


class ArchitectureError(MelgenreError, ValueError):
    """An architecture that is unknown or does not accept these images."""


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


class JoinedBackbones(nn.ModuleList):
    """Several backbones side by side: the features of all of them, one after another."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images [shape=(batch, 3, n_mels, columns)] -> features [shape=(batch, d)]."""
        return torch.cat([backbone(x) for backbone in self], dim=1)
