"""The plot of the genres along a recording: bands are probabilities, hatched grey is "unsure"."""

import os

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from melgenre.data.audio import SAMPLE_RATE, load_audio
from melgenre.data.table import probabilities, probability_columns
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.timeline import plot_timeline


@pytest.mark.slow
def test_the_bands_are_the_probabilities(exported, images):
    classifier = GenreClassifier.load(exported)
    clips = [load_audio(path, duration=30) for path in images["path"].iloc[[0, 9]]]
    song = np.concatenate([*clips, np.zeros(30 * SAMPLE_RATE)]), SAMPLE_RATE
    analysis = classifier.analyze(song)
    above, below = analysis.plot().figure.axes
    assert len(above.images) == 3
    heights = {}
    for band in below.patches:
        values, edges, baseline = band.get_data()
        assert edges.tolist() == [0, 30, 60, 90]
        heights[band.get_label()] = values - (0 if baseline is None else baseline)
    expected = probabilities(analysis.timeline).where(~analysis.timeline["is_ood"], 0)
    for genre in classifier.genres:
        assert heights[genre] == pytest.approx(expected[genre].to_numpy(), abs=1e-6)
    assert heights["unsure"][2] == 1
    assert sum(heights.values()) == pytest.approx(np.ones(3), abs=1e-5)


def test_the_plot_ends_where_the_song_ends():
    timeline = pd.DataFrame({"start": [0.0, 30, 45], "end": [30.0, 60, 75]})
    timeline[probability_columns(["a", "_$b$"])] = [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]
    timeline["is_ood"] = [False, True, False]
    ax = plot_timeline(timeline, [np.zeros((8, 20), np.uint8)] * 3, Figure())
    assert ax.get_xlim() == (0, 75)
    assert [list(band.get_data().edges) for band in ax.patches[:2]] == [[0, 30, 60, 75]] * 2
    assert list(ax.patches[1].get_data().values) == [1, 0, 1]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["unsure", r"\$b\$", "a"]
    ax.figure.savefig(os.devnull, format="png")
    assert len(ax.figure.axes) == 2


@pytest.mark.parametrize("n", [1, 10, 11, 20, 60])
def test_no_two_genres_look_the_same(n):
    """Nor does a genre look like "unsure", in the plot or in its legend."""
    timeline = pd.DataFrame({"start": [0.0, 30], "end": [30.0, 60], "is_ood": [False, True]})
    shares = pd.DataFrame(1 / n, index=timeline.index, columns=[f"p_{i}" for i in range(n)])
    ax = plot_timeline(timeline.join(shares), [np.zeros((8, 20), np.uint8)] * 2, Figure((10, 4)))
    for patches in (ax.patches, ax.get_legend().get_patches()):
        styles = [(patch.get_facecolor(), patch.get_hatch()) for patch in patches]
        # Of more than 20 genres, the less probable ones are one band.
        assert len(set(styles)) == len(styles) == min(n, 20) + 1
        assert len({colour for colour, _ in styles}) == len(styles)
    ax.figure.savefig(os.devnull, format="png")
    assert ax.get_legend().get_window_extent().height < ax.get_window_extent().height


def test_a_short_recording_is_not_repeated_in_its_plot(exported, write_song, tmp_path):
    classifier = GenreClassifier.load(exported)
    analysis = classifier.analyze(write_song(tmp_path / "song.wav", seconds=6))
    above, below = analysis.plot(Figure()).figure.axes
    (drawn,) = above.images
    assert drawn.get_array().shape == (128, round(387 * 6 / 30))
    assert below.get_xlim() == (0, 6)
