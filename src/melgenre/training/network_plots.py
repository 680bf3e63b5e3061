"""Plots of a network: a diagram of its parts, and its feature maps of a clip."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from fastai.vision.all import Learner
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from ..data.mel_settings import MelSettings
from ..heads import member_heads
from ..textures import ArchitectureError, JoinedBackbones, TextureBackbone
from .image_loader import image_batch
from .learner import is_frozen

FILL = {"data": "#F2F2F2", "frozen": "#CDE4F3", "trained": "#FBE0C3"}
"""Colour of a box: of what is computed, and of the layers that compute it."""


def plot_network(learn: Learner) -> Axes:
    """Draw the parts of a learner's network, with the shapes of one forward pass.

    Parameters
    ----------
    learn
        Of `melgenre.training.learner.genre_learner` or `load_exported`.

    Returns
    -------
    matplotlib.axes.Axes
        From the image on the left to the genres on the right. Frozen layers are blue, and trained
        ones are orange.
    """
    body, head = learn.model.eval()
    settings = _settings(learn)
    layers = "frozen" if is_frozen(learn) else "trained"
    heads = member_heads(head)
    linear = [layer for layer in heads[0].modules() if isinstance(layer, nn.Linear)]
    image = torch.zeros(1, 3, settings.n_mels, settings.columns, device=linear[0].weight.device)
    with torch.no_grad():
        if isinstance(body, JoinedBackbones):
            columns = _joined_parts(body, image, layers, learn.training_run.architecture)
        else:
            parts = _texture_parts if isinstance(body, TextureBackbone) else _whole_parts
            columns = parts(body, image, layers, linear[0].in_features)
    widths = " → ".join(str(n) for n in [linear[0].in_features, *(x.out_features for x in linear)])
    last = f"head\n{widths}"
    if len(heads) > 1:
        last = f"{len(heads)} heads, mean of\ntheir probabilities"
    picture = f"mel-spectrogram\n{settings.n_mels} bands ×\n{settings.columns} frames"
    columns = [
        [("data", picture)],
        *columns,
        [("trained", last)],
        [("data", f"{len(learn.dls.vocab)} genres")],
    ]
    _, ax = plt.subplots(figsize=(9, 2.5), layout="constrained")
    ax.set(xlim=(0, len(columns)), ylim=(0, 1))
    ax.set_axis_off()
    ax.set_title(f"{learn.training_run.model} ({layers} backbone, trained head)", fontsize=10)
    _draw_boxes(ax, columns)
    return ax


def _texture_parts(body, image, layers, n_features):
    """The boxes between the image and the head: columns of pairs of a kind and a text."""
    fine, coarse = body.maps(image)
    return [
        [
            (layers, f"first layers,\nto 1/4 of the size\n{_shape(fine)}"),
            (layers, f"image enlarged twice,\nlayers to 1/8\n{_shape(coarse)}"),
        ],
        [("data", f"mean and std\nover time\nin {body.zones} zones\n{n_features} features")],
    ]


def _joined_parts(body, image, layers, architecture):
    """The same for an ensemble: one box per backbone."""
    names = architecture.split("+")
    widths = [backbone(image).shape[1] for backbone in body]
    boxes = [f"{name}: {width} textures" for name, width in zip(names, widths, strict=True)]
    return [[(layers, box) for box in boxes]]


def _whole_parts(body, image, layers, n_features):
    """The same for a network with all its layers."""
    return [
        [(layers, f"all layers\n{_shape(body(image))}")],
        [("data", f"pooling\n{n_features} features")],
    ]


def _shape(maps):
    """The shape of feature maps in words."""
    _, channels, rows, columns = maps.shape
    return f"{channels} maps of {rows} × {columns}"


def _draw_boxes(ax, columns):
    """Draw a box per text, and an arrow from each box to each one of the next column."""
    before = []
    for x, column in enumerate(columns):
        heights = (np.arange(len(column))[::-1] + 0.5) / len(column)
        boxes = [
            ax.text(
                x + 0.5,
                y,
                text,
                ha="center",
                va="center",
                fontsize=9,
                bbox={"boxstyle": "round,pad=0.5", "facecolor": FILL[kind], "edgecolor": "grey"},
            )
            for y, (kind, text) in zip(heights, column, strict=True)
        ]
        for left in before:
            for right in boxes:
                ax.annotate(
                    "",
                    xy=(0, 0.5),
                    xycoords=right.get_bbox_patch(),
                    xytext=(1, 0.5),
                    textcoords=left.get_bbox_patch(),
                    arrowprops={"arrowstyle": "->", "color": "grey"},
                )
        before = boxes


def plot_feature_maps(learn: Learner, image: str | Path | np.ndarray, n: int = 2) -> Figure:
    """Plot some feature maps of a clip's image, and the statistics that are kept of them.

    The maps are those of the first depth of a `TextureBackbone`. Those whose standard deviation
    over time is largest, on average over the zones, are shown. Of each map the network keeps a mean
    and a standard deviation per zone: what the clip sounds like, not when.

    Parameters
    ----------
    learn
        With a recipe of textures.
    image : str, Path or np.ndarray [shape=(n_mels, columns), dtype=uint8]
    n
        Number of feature maps.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArchitectureError
        If the network is no texture network.
    """
    body = learn.model[0].eval()
    if not isinstance(body, TextureBackbone):
        raise ArchitectureError(
            "Feature maps with zones are those of a texture network. Choose a recipe for textures, "
            "such as 'texture'."
        )
    x = image_batch(learn, image).to(next(body.parameters()).device)
    with torch.no_grad():
        maps = body.fine(x).float()
        statistics = body.pool_statistics(maps).view(2, maps.shape[1], body.zones)
    mean, std = statistics.cpu().numpy()
    channels = np.argsort(-std.mean(axis=1))[:n]
    settings = _settings(learn)
    figure, axes = plt.subplots(
        n + 1,
        3,
        figsize=(9, 1.7 * (n + 1)),
        width_ratios=(6, 1, 1),
        sharex="col",
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    _show_map(axes[0, 0], x[0, 0].cpu().numpy(), settings, "mel-spectrogram")
    for ax in axes[0, 1:]:
        ax.set_axis_off()
    for row, channel in zip(axes[1:], channels, strict=True):
        _show_map(row[0], maps[0, channel].cpu().numpy(), settings, f"feature map {channel}")
        _draw_zones(row[1], mean[channel], settings, "#0072B2")
        _draw_zones(row[2], std[channel], settings, "#D55E00")
    axes[1, 1].set_title("mean", fontsize=10)
    axes[1, 2].set_title("standard\ndeviation", fontsize=10)
    axes[-1, 0].set_xlabel("time in s")
    return figure


def _show_map(ax, values, settings, title):
    """Show an image or a feature map over time and mel bands."""
    extent = (0, settings.duration, 0, settings.n_mels)
    ax.imshow(values, aspect="auto", cmap="magma", extent=extent)
    ax.set_ylabel("mel band")
    ax.set_title(title, fontsize=10)


def _draw_zones(ax, values, settings, colour):
    """Draw one bar per zone, from high to low frequency."""
    height = settings.n_mels / len(values)
    centres = settings.n_mels - height * (np.arange(len(values)) + 0.5)
    ax.barh(centres, values, height=0.8 * height, color=colour)
    ax.axvline(0, color="grey", linewidth=0.5)


def _settings(learn):
    """The settings of the images that a learner was trained on."""
    return MelSettings(**(learn.training_run.mel_settings or {}))
