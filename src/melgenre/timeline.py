"""Genres along a song, as a picture that is read at a glance."""

import matplotlib.pyplot as plt
import numpy as np

UNSURE_COLOUR = "0.85"


def plot_timeline(classifier, recording, *, timeline=None, figsize=(9, 4)):
    """The genres of a recording as bands along it, under its mel-spectrogram.

    Windows that the model is unsure of are grey.

    Parameters
    ----------
    classifier : melgenre.classifier.GenreClassifier
    recording
        As for `GenreClassifier.predict`.
    timeline : pd.DataFrame
        Of `GenreClassifier.timeline`, where that has been asked for already.
    figsize : tuple of float
        In inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    windows = list(classifier.pictures(recording))
    timeline = classifier.timeline(recording) if timeline is None else timeline
    figure, (above, below) = plt.subplots(
        2, figsize=figsize, sharex=True, layout="constrained", height_ratios=(1, 1.4)
    )
    for start, end, picture in windows:
        above.imshow(picture, aspect="auto", cmap="magma", extent=(start, end, 0, 1))
    above.set(yticks=[], ylabel="mel bands")
    edges = [*timeline["start"], timeline["end"].iloc[-1]]
    bottom = np.zeros(len(timeline))
    colours = plt.get_cmap("tab20" if len(classifier.genres) > 10 else "tab10").colors
    for number, genre in enumerate(classifier.genres):
        chance = timeline[f"p_{genre}"].where(~timeline["unsure"], 0).to_numpy()
        colour = colours[number % len(colours)]
        label = genre.lstrip("_").replace("$", r"\$")  # neither hidden nor a formula
        below.stairs(bottom + chance, edges, baseline=bottom, fill=True, color=colour, label=label)
        bottom += chance
    if timeline["unsure"].any():
        below.stairs(1.0 * timeline["unsure"], edges, baseline=bottom * ~timeline["unsure"],
                     fill=True, color=UNSURE_COLOUR, label="unsure")  # fmt: skip
    below.set(xlim=(edges[0], edges[-1]), ylim=(0, 1), xlabel="seconds", ylabel="probability")
    handles, labels = below.get_legend_handles_labels()
    below.legend(handles[::-1], labels[::-1], bbox_to_anchor=(1, 1), loc="upper left", fontsize=8)
    return figure
