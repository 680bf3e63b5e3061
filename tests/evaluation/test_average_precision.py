"""Scores of predictions of several genres per song."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import average_precision_score

from melgenre.evaluation.fixed_features import evaluate_features
from melgenre.evaluation.metrics import (
    EvaluationError,
    confusion_matrix,
    evaluate,
    format_score,
)
from melgenre.evaluation.multi_label import average_precision
from melgenre.evaluation.results import ResultsError, record_run
from melgenre.evaluation.run import Run

GENRES = ["jazz", "punk", "rock"]


def table(n=60, noise=0.3, seed=0):
    """Predictions of three genres, whose probabilities are the truth and some noise."""
    rng = np.random.default_rng(seed)
    true = rng.random((n, 3)) < [0.2, 0.3, 0.6]
    true[~true.any(axis=1), 2] = True
    found = np.clip(true + noise * rng.normal(size=(n, 3)), 0, 1)
    predicted = found > 0.5
    frame = pd.DataFrame({"track_id": [f"t{i}" for i in range(n)]})
    for column, has in (("genre", true), ("predicted", predicted)):
        frame[column] = [[g for g, one in zip(GENRES, row, strict=True) if one] for row in has]
    frame["artist_id"] = [f"a{i // 3}" for i in range(n)]
    return frame.assign(**{f"p_{g}": found[:, i] for i, g in enumerate(GENRES)})


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3)), min_size=1))
def test_average_precision_is_that_of_scikit_learn(rows):
    true, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    found = average_precision(true, scores, np.stack([weights, np.ones_like(weights)]))
    for one, w in zip(found, (weights, np.ones_like(weights)), strict=True):
        if (true * w).sum() == 0:
            assert np.isnan(one)
        else:
            expected = average_precision_score(true, scores, sample_weight=w)
            assert one == pytest.approx(expected)


def test_a_result_has_the_scores_of_several_genres():
    predictions = table()
    result = evaluate(predictions, "random", split=predictions.assign(split="test"))
    per_genre = result["average_precision"]
    assert result["mean_average_precision"] == pytest.approx(
        np.mean([*per_genre.values()]), abs=1e-4
    )
    assert list(per_genre) == sorted(per_genre, key=per_genre.get)
    low, high = result["interval"]
    assert low < result["mean_average_precision"] < high
    assert (result["tracks"], result["leaks"], result["untested"]) == (60, {}, [])
    assert format_score(result).startswith("mean average precision 9")
    assert format_score(result).endswith("on 60 tracks (random)")


def test_perfect_predictions_have_the_best_scores_and_random_ones_the_share_of_the_genres():
    perfect = evaluate(table(noise=0), "random")
    assert perfect["mean_average_precision"] == perfect["micro_f1"] == perfect["macro_f1"] == 1
    predictions = table(n=2000)
    shuffled = predictions[[f"p_{g}" for g in GENRES]].sample(frac=1, random_state=1)
    predictions[shuffled.columns] = shuffled.to_numpy()
    shares = predictions["genre"].explode().value_counts() / 2000
    for genre, precision in evaluate(predictions, "random")["average_precision"].items():
        assert precision == pytest.approx(shares[genre], abs=0.06)


def test_the_interval_is_wider_where_the_songs_are_by_few_artists():
    many, few = table(n=150, noise=0.8), table(n=150, noise=0.8)
    few["artist_id"] = np.repeat(np.arange(10), 15).astype(str)
    # Of each artist all songs are copies of the first one, so that errors are correlated.
    columns = ["genre", "predicted", *(f"p_{g}" for g in GENRES)]
    for column in columns:
        few[column] = few.groupby("artist_id")[column].transform(
            lambda one: [one.iloc[0]] * len(one)
        )
    wide, narrow = (np.diff(evaluate(one, "random")["interval"]) for one in (few, many))
    assert wide > 2 * narrow


def test_a_genre_without_test_tracks_is_left_out_and_listed():
    predictions = table().assign(p_blues=0.01)
    with pytest.raises(EvaluationError, match="No track of 'blues'"):
        evaluate(predictions, "random")
    train = pd.DataFrame({"track_id": ["b"], "genre": [["blues", "rock"]], "split": "train"})
    split = pd.concat([predictions.assign(split="test"), train])
    result = evaluate(predictions, "random", split=split)
    assert result["untested"] == ["blues"]
    assert set(result["average_precision"]) == set(GENRES)
    assert "; not tested: blues" in format_score(result)


def test_what_needs_one_genre_per_song_gets_a_sentence(tmp_path):
    predictions = table()
    with pytest.raises(EvaluationError, match="needs one genre per track"):
        confusion_matrix(predictions)
    tracks = predictions.assign(collection="mine")
    with pytest.raises(EvaluationError, match="one genre per track"):
        evaluate_features("numbers", np.ones((60, 2)), tracks, progress=False)
    result = evaluate(predictions, "random")
    run = Run("m", "a", "r", "w", 0, "mine", 1, result=result, predictions=predictions)
    with pytest.raises(ResultsError, match="export_learner"):
        record_run(tmp_path / "results", run)
    assert not (tmp_path / "results").exists()
