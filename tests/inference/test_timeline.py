"""The time line as an image: the bands are the probabilities, and grey is where it is unsure."""

import os

import numpy as np
import pandas as pd
import pytest

from melgenre.data.audio import SAMPLE_RATE, load_audio
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.timeline import plot_timeline


def test_the_bands_are_the_probabilities(exported, images):
    classifier = GenreClassifier.load(exported)
    clips = [load_audio(path, duration=30) for path in images["path"].iloc[[0, 9]]]
    song = np.concatenate([*clips, np.zeros(30 * SAMPLE_RATE)]), SAMPLE_RATE
    timeline = classifier.timeline(song)
    above, below = classifier.plot_timeline(song).figure.axes
    assert len(above.images) == 3
    heights = {}
    for band in below.patches:
        values, edges, baseline = band.get_data()
        assert edges.tolist() == [0, 30, 60, 90]
        heights[band.get_label()] = values - (0 if baseline is None else baseline)
    for genre in classifier.genres:
        expected = timeline[f"p_{genre}"].where(~timeline["is_ood"], 0)
        assert heights[genre] == pytest.approx(expected.to_numpy(), abs=1e-6)
    assert heights["is_ood"][2] == 1
    assert sum(heights.values()) == pytest.approx(np.ones(3), abs=1e-5)


def test_the_time_line_is_drawn_to_the_end_of_the_song():
    timeline = pd.DataFrame({"start": [0.0, 30, 45], "end": [30.0, 60, 75]})
    timeline = timeline.assign(p_a=[0.9, 0.2, 0.5], **{"p__$b$": [0.1, 0.8, 0.5]})
    timeline["is_ood"] = [False, True, False]
    ax = plot_timeline(timeline, [np.zeros((8, 20), np.uint8)] * 3)
    assert ax.get_xlim() == (0, 75)
    assert [list(band.get_data().edges) for band in ax.patches[:2]] == [[0, 30, 60, 75]] * 2
    assert list(ax.patches[1].get_data().values) == [1, 0, 1]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["unsure", r"\$b\$", "a"]
    ax.figure.savefig(os.devnull, format="png")
    assert len(ax.figure.axes) == 2
