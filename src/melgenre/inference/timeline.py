"""Genres along a song, as an image that is read at a glance."""

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure


def plot_timeline(timeline, images=(), figure=None):
    """The genres of a recording as stacked bands along it, under its mel-spectrogram.

    Parameters
    ----------
    timeline : pd.DataFrame
        As of `GenreClassifier.timeline`. Its unsure windows are left grey.
    images : sequence of np.ndarray [shape=(n_mels, columns), dtype=uint8]
        Of its windows.
    figure : matplotlib.figure.Figure
        An empty one; None: one that pyplot knows nothing of, as the threads of a server need.

    Returns
    -------
    matplotlib.axes.Axes
        Of the bands.
    """
    # The last window may begin before the one before has ended.
    edges = np.append(timeline["start"], timeline["end"].iloc[-1])
    if len(edges) > 2:
        edges[-2] = timeline["end"].iloc[-2]
    figure = figure or Figure(figsize=(10, 4))
    figure.subplots_adjust(0.07, 0.13, 0.85, 0.97, hspace=0.08)
    above, ax = figure.subplots(2, sharex=True, height_ratios=(1, 1.3))
    for start, end, image in zip(timeline["start"], timeline["end"], images, strict=False):
        above.imshow(image, aspect="auto", cmap="magma", extent=(start, end, 0, 1))
    above.set(yticks=[], ylabel="low to high")
    bottom, sure = np.zeros(len(timeline)), ~timeline["is_ood"].to_numpy()
    names = [column for column in timeline if column.startswith("p_")]
    colours = colormaps["tab20" if len(names) > 10 else "tab10"].colors
    for number, name in enumerate(names):
        top = bottom + np.where(sure, timeline[name], 0)
        ax.stairs(top, edges, baseline=bottom, fill=True, color=colours[number % len(colours)],
                  label=name[2:].lstrip("_").replace("$", r"\$"))  # fmt: skip
        bottom = top
    if not sure.all():
        ax.stairs(np.ones(len(sure)), edges, baseline=sure * 1.0, fill=True, facecolor="0.95",
                  edgecolor="0.6", hatch="///", label="unsure")  # fmt: skip
    ax.set(xlim=(edges[0], edges[-1]), ylim=(0, 1), xlabel="seconds", ylabel="probability")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], bbox_to_anchor=(1, 1), loc="upper left", fontsize=8)
    return ax
