import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from melgenre.evaluation import bootstrap
from melgenre.evaluation.metrics import (
    bootstrap_ci,
    evaluate,
    format_score,
    macro_f1,
    macro_f1_ci,
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


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1))
def test_macro_f1_is_the_mean_f1_of_the_tested_genres(pairs):
    frame = pd.DataFrame(pairs, columns=["genre", "predicted"])
    scores = []
    for genre in set(frame["genre"]):
        true, predicted = frame["genre"] == genre, frame["predicted"] == genre
        scores.append(2 * (true & predicted).sum() / (true.sum() + predicted.sum()))
    assert macro_f1(frame) == pytest.approx(np.mean(scores))


@pytest.mark.slow
@pytest.mark.parametrize("rare", [3, 30])
def test_the_interval_of_the_macro_f1_covers_it_and_widens_with_rare_genres(rare):
    rng = np.random.default_rng(0)
    genre = np.repeat(["common", "other", "rare"], [200, 200, rare])
    predicted = np.where(rng.random(len(genre)) < 0.7, genre, rng.permutation(genre))
    frame = pd.DataFrame({"genre": genre, "predicted": predicted})
    frame["track_id"] = [f"t{i}" for i in range(len(frame))]
    low, high = macro_f1_ci(frame)
    assert low < macro_f1(frame) < high
    accuracy_low, accuracy_high = bootstrap_ci(frame)
    assert (high - low > 2 * (accuracy_high - accuracy_low)) == (rare == 3)


def test_an_interval_does_not_depend_on_the_memory_that_it_takes(monkeypatch):
    frame = table(np.arange(60) % 10 < 6, artists=np.repeat(np.arange(20), 3).astype(str))
    before = bootstrap_ci(frame), macro_f1_ci(frame)
    monkeypatch.setattr(bootstrap, "BLOCK", 100)
    assert (bootstrap_ci(frame), macro_f1_ci(frame)) == before


def test_a_score_of_many_genres_is_one_short_sentence():
    result = {"accuracy": 0.5, "interval": [0.4, 0.6], "tracks": 200, "protocol": "random"}
    result |= {"macro_f1": 0.3, "macro_f1_interval": [0.2, 0.4]}
    result["untested"] = [f"genre {i}" for i in range(100)]
    text = format_score(result)
    assert "50.0 % [40.0, 60.0], macro F1 30.0 % [20.0, 40.0], on 200 tracks" in text
    assert text.endswith("; not tested: " + ", ".join(result["untested"][:10]) + " and 90 more")


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
