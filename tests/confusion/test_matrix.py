"""The confusion matrix: the table of predictions that it is made from, its numbers and its plot."""

import itertools
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fastai.vision.all import ClassificationInterpretation
from genre_tree import TOP, made_up_confusions
from sklearn.metrics import f1_score

from melgenre.confusion.matrix import as_predictions, ordered_matrix, plot_confusion_matrix
from melgenre.data.table import probability_columns
from melgenre.evaluation.metrics import EvaluationError, confusion_matrix
from melgenre.training.exported import load_exported

ODD = ["R&B/soul", "<b>bold</b>", "Джаз", "\"quoted\" 'name' </script>"]


def made_up_predictions(genres, n=6):
    """A table of random predictions: `n` clips of each genre, without images and sounds."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"genre": np.repeat(genres, n)})
    probabilities = rng.dirichlet(np.ones(len(genres)), len(table))
    table["track_id"] = [f"{genre}.{i}" for i, genre in enumerate(table["genre"])]
    table["predicted"] = [genres[i] for i in probabilities.argmax(axis=1)]
    table[probability_columns(genres)] = probabilities
    return table.assign(image=None, path=None)


def test_every_clip_is_counted_once_and_an_empty_genre_keeps_its_row():
    table = made_up_predictions(["a", "b", "c"])
    table = table[table["genre"] != "b"]
    counts = confusion_matrix(table)
    assert counts.to_numpy().sum() == len(table)
    assert counts.loc["b"].sum() == 0
    assert list(counts.index) == list(counts.columns) == ["a", "b", "c"]
    for row, column in np.ndindex(3, 3):
        of_cell = (table["genre"] == "abc"[row]) & (table["predicted"] == "abc"[column])
        assert counts.iat[row, column] == of_cell.sum()


@pytest.mark.parametrize("normalize", [False, True])
def test_the_plot_shows_the_counts_or_the_percentages_of_each_row(normalize):
    table = made_up_predictions([*ODD, "$x^$"])
    ax = plot_confusion_matrix(table, normalize=normalize)
    ax.figure.canvas.draw()  # odd names must not start math mode
    assert len(ax.texts) == (confusion_matrix(table) > 0).to_numpy().sum()
    shown = sum(float(text.get_text()) for text in ax.texts)
    assert shown == pytest.approx(500 if normalize else len(table), abs=10 if normalize else 0)
    assert ax.get_ylabel() == "true genre"
    assert ax.get_xlabel() == "predicted genre" + (" (% of each row)" if normalize else "")
    accuracy = (table["genre"] == table["predicted"]).mean()
    assert ax.get_title() == f"accuracy {100 * accuracy:.1f} % (n = {len(table)})"
    plt.close(ax.figure)


def test_many_genres_are_clustered_by_their_confusions():
    table = made_up_confusions()
    ordered = ordered_matrix(table)
    pd.testing.assert_frame_equal(ordered.sort_index().sort_index(axis=1), confusion_matrix(table))
    assert list(ordered.index) == list(ordered.columns)
    tops = [TOP[genre] for genre in ordered.index]
    changes = sum(a != b for a, b in itertools.pairwise(tops))
    assert changes == len(set(tops)) - 1  # the genres of each top genre are one block


def test_few_genres_are_clustered_on_request_alone():
    table = pd.DataFrame({"genre": list("abcd") * 2, "predicted": list("cdab") + list("abcd")})
    assert "".join(ordered_matrix(table).index) == "abcd"
    order = "".join(ordered_matrix(table, clustered=True).index)
    assert order in ("acbd", "acdb", "cabd", "cadb", "bdac", "bdca", "dbac", "dbca")


def test_a_genre_that_is_never_tested_nor_predicted_keeps_its_place_in_the_cluster():
    table = made_up_confusions(tracks_per_genre=2)
    hidden = "Polka"
    table = table[(table["genre"] != hidden) & (table["predicted"] != hidden)]
    ordered = ordered_matrix(table)
    assert len(ordered) == len(TOP)
    assert ordered.loc[hidden].sum() == ordered[hidden].sum() == 0


@pytest.mark.slow
def test_the_plot_of_161_genres_has_all_names_and_a_bounded_size():
    table = made_up_confusions(tracks_per_genre=4)
    ax = plot_confusion_matrix(table)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(ordered_matrix(table).index)
    assert max(ax.figure.get_size_inches()) < 20
    assert ax.get_yticklabels()[0].get_fontsize() >= 5
    assert not ax.texts
    f1 = f1_score(table["genre"], table["predicted"], average="macro")
    assert f", macro F1 {100 * f1:.1f} % (n = 644)" in ax.get_title()


def test_missing_columns_are_named():
    with pytest.raises(EvaluationError, match=r"column genre, predicted, p_<genre>, path or image"):
        as_predictions(pd.DataFrame({"x": [1]}))
    table = pd.DataFrame({"genre": ["a"], "predicted": ["a"], "path": ["a.wav"]})
    with pytest.raises(EvaluationError, match=r"no column p_<genre>\."):
        as_predictions(table)


@pytest.mark.slow
def test_a_learner_and_its_interpretation_give_the_same_predictions(learner):
    predictions = as_predictions(learner)
    assert len(predictions) == len(learner.dls.valid_ds)
    interpretation = ClassificationInterpretation.from_learner(learner)
    pd.testing.assert_frame_equal(as_predictions(interpretation), predictions)


def test_a_loaded_learner_without_a_validation_set_raises(exported):
    learn, _ = load_exported(exported)
    with pytest.raises(EvaluationError, match="This learner has no validation set"):
        as_predictions(learn)


@pytest.mark.slow
def test_the_matrix_of_a_table_is_plotted_without_torch():
    code = "import sys, melgenre; melgenre.plot_confusion_matrix; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
