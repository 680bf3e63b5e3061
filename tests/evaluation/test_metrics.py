import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from melgenre.evaluation.metrics import (
    bootstrap_ci,
    evaluate,
    format_score,
    paired_permutation_test,
    recall_by_genre,
)
from melgenre.training.learner import predict_tracks


def table(correct, artists=None):
    """Predictions of two genres; `correct` holds whether each is correct."""
    genre = np.resize(["jazz", "rock"], len(correct))
    other = np.resize(["rock", "jazz"], len(correct))
    frame = pd.DataFrame({"track_id": [f"t{i}" for i in range(len(correct))], "genre": genre})
    frame["predicted"] = np.where(correct, genre, other)
    frame["artist_id"] = artists
    return frame


@settings(max_examples=50)
@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_the_interval_contains_the_accuracy(correct):
    low, high = bootstrap_ci(table(correct))
    assert 0 <= low <= np.mean(correct) <= high <= 1


def test_the_interval_of_290_tracks_reaches_some_six_points_to_each_side():
    low, high = bootstrap_ci(table(np.arange(290) % 10 < 6))
    assert 0.05 < 0.6 - low < 0.065
    assert 0.05 < high - 0.6 < 0.065


def test_errors_correlated_within_artists_widen_the_interval():
    correct = np.repeat(np.arange(30) % 2 == 0, 10)
    narrow = np.diff(bootstrap_ci(table(correct)))
    wide = np.diff(bootstrap_ci(table(correct, artists=np.repeat(np.arange(30), 10).astype(str))))
    assert wide > 2 * narrow


def test_a_result_contains_its_tracks_leaks_and_recall():
    predictions = table([True, True, False, True])
    split = predictions.assign(split=["train", "test"] * 2, artist_id=["x", "x", "y", "z"])
    result = evaluate(predictions, "random", split=split)
    assert (result["accuracy"], result["tracks"]) == (0.75, 4)
    assert result["leaks"] == {"artist": 1}
    assert result["macro_f1"] == pytest.approx(np.mean([2 / 3, 4 / 5]), abs=1e-4)
    assert result["recall"] == {"jazz": 0.5, "rock": 1.0}
    assert format_score(result).startswith("75.0 % [")
    assert format_score(result).endswith(
        "on 4 tracks (random); few tracks, so only a rough estimate"
    )
    assert format_score(result | {"tracks": 290}).endswith("on 290 tracks (random)")
    assert recall_by_genre(predictions).to_dict() == {"jazz": 0.5, "rock": 1.0}
    with pytest.raises(ValueError, match="no test track"):
        evaluate(predictions.head(0), "random")


def test_a_genre_without_predictions_raises_an_error():
    predictions = table([True, True]).assign(p_jazz=0.5, p_rock=0.5, p_blues=0.0)
    with pytest.raises(ValueError, match="No track of 'blues'"):
        evaluate(predictions, "random")


def test_a_genre_without_test_tracks_is_listed_as_untested():
    predictions = table([True, True, True, False]).assign(p_jazz=0.5, p_rock=0.5, p_blues=0.0)
    train = pd.DataFrame({"track_id": ["b1", "b2"], "genre": "blues", "split": "train"})
    split = pd.concat([predictions.assign(split="test"), train])
    result = evaluate(predictions, "artist-split", split=split)
    assert result["untested"] == ["blues"]
    assert result["macro_f1"] == pytest.approx(np.mean([0.8, 2 / 3]), abs=1e-4)
    assert "; not tested: blues;" in format_score(result)
    # A genre with test tracks must be among the predictions.
    with pytest.raises(ValueError, match="No track of 'jazz'"):
        evaluate(predictions[predictions["genre"] == "rock"], "artist-split", split=split)


def test_the_interval_has_a_width_if_all_or_no_predictions_are_correct():
    for n in (3, 17, 60):
        low, high = bootstrap_ci(table(np.ones(n, bool)))
        assert (low, high) == (pytest.approx(1 - 3 / n), 1)
        low, high = bootstrap_ci(table(np.zeros(n, bool)))
        assert (low, high) == (0, pytest.approx(3 / n))


def test_a_model_does_not_differ_from_itself():
    one = table(np.arange(100) % 3 == 0)
    same = paired_permutation_test(one, one)
    assert (same["difference"], same["p_value"]) == (0.0, 1.0)


def test_a_clear_difference_is_significant():
    good, bad = table(np.arange(200) % 10 < 8), table(np.arange(200) % 10 < 5)
    better = paired_permutation_test(good, bad)
    assert better["difference"] == pytest.approx(0.3)
    assert better["p_value"] < 0.001
    assert better["interval"][0] > 0.2
    worse = paired_permutation_test(bad, good)
    assert worse["difference"] == pytest.approx(-0.3)
    assert worse["p_value"] == better["p_value"]


def test_a_difference_on_one_artist_only_is_not_significant():
    artists = np.repeat(np.arange(20), 10).astype(str)
    good = table(np.ones(200, bool), artists=artists)
    bad = table(np.arange(200) >= 10, artists=artists)
    assert paired_permutation_test(good, bad)["p_value"] > 0.5


def test_predictions_of_different_tracks_cannot_be_compared():
    with pytest.raises(ValueError, match="models of one protocol"):
        paired_permutation_test(table([True, False]), table([True]))


def test_predict_tracks_adds_probabilities_and_predictions_to_the_table(learner, images):
    tracks = images.head(6)
    predictions = predict_tracks(learner, tracks)
    pd.testing.assert_frame_equal(predictions[tracks.columns], tracks)
    probabilities = predictions[[f"p_{genre}" for genre in learner.dls.vocab]]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    highest = probabilities.idxmax(axis=1).str.removeprefix("p_")
    assert highest.tolist() == predictions["predicted"].tolist()
