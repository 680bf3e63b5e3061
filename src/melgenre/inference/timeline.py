"""Plot the genres along a recording."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps

from ..data.table import probabilities

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HATCHES = (None, "..", "xx", "\\\\", "oo")
"""For each further round through the colours; "//" is left to what is unsure."""

MOST_BANDS = 20
"""Of more genres than this, the less probable ones are one band together."""
OTHERS = "other genres"

MOST_ROWS = 12
"""Genres in a heat map."""


def plot_timeline(
    timeline: pd.DataFrame,
    images: Iterable[np.ndarray],
    figure: Figure,
    *,
    multi_label: bool = False,
) -> Axes:
    """Plot the genres of a recording as stacked bands under its mel-spectrogram.

    Parameters
    ----------
    timeline
        Of `Analysis.timeline`. Its out-of-distribution windows are hatched in grey.
    images : iterable of np.ndarray [shape=(n_mels, columns), dtype=uint8]
        One per window.
    figure
        An empty figure.
    multi_label
        Whether the probabilities are independent of each other: then they are a heat map, with a
        row for each of the genres that reach the highest probabilities.

    Returns
    -------
    The axes of the bands or rows.
    """
    # The last window may begin before the one before it ends.
    edges = np.append(timeline["start"], timeline["end"].iloc[-1])
    if len(edges) > 2:
        edges[-2] = timeline["end"].iloc[-2]
    figure.subplots_adjust(0.07, 0.13, 0.85, 0.97, hspace=0.08)
    above, ax = figure.subplots(2, sharex=True, height_ratios=(1, 1.3))
    for start, end, image in zip(timeline["start"], timeline["end"], images, strict=True):
        above.imshow(image, aspect="auto", cmap="magma", extent=(start, end, 0, 1))
    above.set(yticks=[], ylabel="low to high")
    (_plot_rows if multi_label else _plot_bands)(timeline, edges, ax)
    return ax


def _plot_bands(timeline, edges, ax):
    """Probabilities that sum to 1, stacked."""
    unsure = timeline["is_ood"].to_numpy()
    bottom, bands = np.zeros(len(timeline)), _most_probable(probabilities(timeline))
    for genre, (colour, hatch) in zip(bands, band_styles(bands.shape[1]), strict=True):
        top = bottom + np.where(unsure, 0, bands[genre])
        ax.stairs(
            top,
            edges,
            baseline=bottom,
            fill=True,
            label=_label(genre),
            facecolor=colour,
            edgecolor="white",
            hatch=hatch,
        )
        bottom = top
    if unsure.any():
        _hatch_unsure(unsure, edges, 1.0, ax)
    ax.set(xlim=(edges[0], edges[-1]), ylim=(0, 1), xlabel="seconds", ylabel="probability")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(
        handles[::-1],
        labels[::-1],
        loc="upper left",
        bbox_to_anchor=(1, 1),
        labelspacing=0.2,
        fontsize=min(8, 90 / len(labels)),  # so that the legend is no taller than the bands
    )


def _plot_rows(timeline, edges, ax):
    """Probabilities that are independent of each other, as a heat map."""
    rows, unsure = probabilities(timeline), timeline["is_ood"].to_numpy()
    highest = rows[~unsure | unsure.all()].max().sort_values(ascending=False, kind="stable")
    shown = rows[highest.index[:MOST_ROWS]].T[::-1]
    heat = ax.pcolormesh(
        edges, np.arange(len(shown) + 1), shown, cmap="Blues", vmin=0, vmax=1, edgecolor="white"
    )
    if unsure.any():
        _hatch_unsure(unsure, edges, len(shown), ax)
        ax.legend(loc="upper right", fontsize=8)
    ax.set(xlim=(edges[0], edges[-1]), ylim=(0, len(shown)), xlabel="seconds")
    ax.set_yticks(np.arange(len(shown)) + 0.5, map(_label, shown.index), fontsize=8)
    ax.yaxis.tick_right()
    above, _ = ax.figure.axes
    bar = above.inset_axes((1.02, 0.1, 0.02, 0.8))
    ax.figure.colorbar(heat, cax=bar, label="probability")


def _hatch_unsure(unsure, edges, height, ax):
    """Cover the windows that are out of distribution."""
    ax.stairs(
        height * np.ones(len(unsure)),
        edges,
        baseline=height * (1.0 - unsure),
        fill=True,
        label="unsure",
        facecolor="0.95",
        edgecolor="0.6",
        hatch="///",
    )


def _label(genre):
    """A genre in a plot: "_" at the beginning would hide it in a legend, "$" begins a formula."""
    return genre.lstrip("_").replace("$", r"\$")


def _most_probable(bands):
    """The probabilities of the genres that a plot has room for, and the sum of the others."""
    if bands.shape[1] <= MOST_BANDS:
        return bands
    kept = bands.max().nlargest(MOST_BANDS - 1).index
    named = bands[[genre for genre in bands if genre in kept]]
    return named.assign(**{OTHERS: (1 - named.sum(axis=1)).clip(lower=0)})


def band_styles(n_genres: int) -> list[tuple[tuple[float, float, float], str | None]]:
    """A colour and a hatch for each genre: distinct for up to 100 genres.

    Examples
    --------
    >>> len(set(band_styles(100)))
    100
    """
    colours = colormaps["tab10" if n_genres <= 10 else "tab20"].colors
    styles = ((colour, hatch) for hatch in HATCHES for colour in colours)
    return list(islice(cycle(styles), n_genres))
