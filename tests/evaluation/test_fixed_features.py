"""Any features are evaluated by the same heads under every protocol of the collection."""

import numpy as np
import pandas as pd
import pytest

from melgenre.data.gtzan import gtzan_metadata
from melgenre.data.protocols import PROTOCOLS, apply_protocol
from melgenre.data.splits import SplitError
from melgenre.evaluation import fixed_features
from melgenre.evaluation.fixed_features import FeatureError, Head, evaluate_features
from melgenre.evaluation.report import compare_models, results_table
from melgenre.evaluation.results import load_results

GENRES = ["blues", "disco", "metal"]


@pytest.fixture(scope="module")
def tracks():
    """Three genres of GTZAN's metadata: no sound, and all protocols."""
    table = gtzan_metadata().assign(collection="gtzan")
    return table[table["genre"].isin(GENRES)].sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def informative(tracks, rng):
    genres = pd.get_dummies(tracks["genre"]).to_numpy(float)
    return np.hstack([genres + rng.normal(0, 0.2, genres.shape), rng.normal(size=(len(tracks), 9))])


@pytest.fixture(scope="module")
def noise(tracks, rng):
    return rng.normal(size=(len(tracks), 12))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear probe", "SVM"])
def test_informative_features_beat_noise_under_every_protocol(tracks, informative, noise, head):
    good = evaluate_features("good", informative, tracks, head=head)
    bad = evaluate_features("bad", noise, tracks, head=head)
    for table in (good, bad):
        assert list(table.index) == list(PROTOCOLS)
        assert (table["low"] <= table["accuracy"]).all()
        assert (table["accuracy"] <= table["high"]).all()
        assert table.loc["random", "leaks"].startswith("artist")
        assert table.loc["artist-split", "leaks"] == "none"
    assert (good["accuracy"] > 0.9).all()
    assert (bad["high"] < good["low"]).all()
    assert (bad["low"] < 0.45).all(), "one of three genres is right by chance"
    split = apply_protocol(tracks, "fault-filtered")
    assert good.loc["fault-filtered", "tracks"] == (split["split"] == "test").sum()


@pytest.mark.slow
def test_features_of_the_artist_alone_fail_where_artists_are_separated(tracks, rng):
    artists = tracks["artist_id"].fillna(tracks["track_id"])
    vectors = {artist: rng.normal(size=50) for artist in sorted(set(artists))}
    X = np.stack([vectors[artist] for artist in artists])
    accuracy = evaluate_features("artist", X, tracks)["accuracy"]
    assert accuracy["random-10-fold"] > accuracy["artist-3-fold"] + 0.15
    assert accuracy["artist-3-fold"] < 0.5


class Spy:
    """An estimator whose only feature is the number of a row; it notes the rows of each call.

    It predicts the true genres if C is 2, and else one genre for all.
    """

    def __init__(self, C, genres, calls):
        self.C, self.genres, self.calls = C, genres, calls

    def fit(self, X, y):
        self.trained = X[:, 0].astype(int)
        assert (self.genres[self.trained] == y).all()
        return self

    def predict(self, X):
        rows = X[:, 0].astype(int)
        self.calls.append((self.C, self.trained, rows))
        return self.genres[rows] if self.C == 2 else np.full(len(rows), GENRES[0])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_regularisation_is_chosen_without_the_test_tracks(tracks, monkeypatch, protocol):
    genres, calls = tracks["genre"].to_numpy(), []
    artists = tracks["artist_id"].fillna(tracks["track_id"]).to_numpy()
    monkeypatch.setitem(
        fixed_features.HEADS, "spy", Head(lambda C: Spy(C, genres, calls), (1, 2, 3))
    )
    monkeypatch.setattr(fixed_features, "PROTOCOLS", [protocol])
    table = evaluate_features("rows", np.arange(len(tracks)), tracks, head="spy")
    assert table.loc[protocol, "accuracy"] == 1, "C = 2 was chosen"
    inner_folds = 1 if protocol == "fault-filtered" else 3
    outer_folds = {"random-10-fold": 10, "artist-3-fold": 3}.get(protocol, 1)
    assert len(calls) == outer_folds * (3 * inner_folds + 1)
    for _ in range(outer_folds):
        choosing, calls = calls[: 3 * inner_folds], calls[3 * inner_folds :]
        (C, trained, tested), *calls = calls
        assert C == 2
        for _, fitted, checked in choosing:
            assert not set(tested) & {*fitted, *checked}
            assert set(fitted) <= set(trained)
            assert not set(artists[fitted]) & set(artists[checked])
        if inner_folds == 1:
            split = apply_protocol(tracks, protocol)["split"].to_numpy()
            assert set(split[trained]) == {"train"}
            assert set(split[choosing[0][2]]) == {"valid"}


@pytest.fixture
def two_protocols(monkeypatch):
    monkeypatch.setattr(fixed_features, "PROTOCOLS", ["random", "fault-filtered"])


def test_a_function_of_a_recording_gives_the_same_as_an_array(tracks, informative, two_protocols):
    rows = dict(zip("music/" + tracks["track_id"] + ".wav", informative, strict=True))
    with_paths = tracks.assign(path=list(rows))
    by_function = evaluate_features("good", rows.get, with_paths, progress=False)
    pd.testing.assert_frame_equal(by_function, evaluate_features("good", informative, tracks))


@pytest.mark.slow
def test_recorded_features_are_in_the_table_of_results_with_a_paired_test(
    tracks, informative, noise, two_protocols, tmp_path
):
    first = evaluate_features("noise", noise, tracks, folder=tmp_path, seeds=2)
    assert "best other" not in first
    second = evaluate_features("good", informative, tracks, folder=tmp_path, seeds=2)
    assert (second["best other"] == "noise + linear probe").all()
    assert (second["difference"] > 0.4).all() and (second["p_value"] < 0.01).all()
    runs = load_results(tmp_path)
    assert len(runs) == 2 * 2 * 2
    assert set(runs["recipe"]) == {"fixed features"}
    assert set(results_table(tmp_path).index) == {"noise + linear probe", "good + linear probe"}
    test = compare_models(tmp_path, "fault-filtered").loc["noise + linear probe"]
    assert test["difference"] == pytest.approx(second.loc["fault-filtered", "difference"], abs=1e-4)
    assert test["p_value"] == pytest.approx(second.loc["fault-filtered", "p_value"], abs=0.005)


@pytest.mark.slow
def test_results_of_another_collection_are_not_compared(
    tracks, informative, noise, two_protocols, tmp_path
):
    evaluate_features("good", informative, tracks, folder=tmp_path)
    other = evaluate_features("noise", noise, tracks.assign(collection="mine"), folder=tmp_path)
    assert "best other" not in other


@pytest.mark.slow
def test_only_the_protocols_that_a_collection_allows_are_used(tracks, noise):
    private = tracks.assign(artist_id=None, artist_fold=None, fault_filtered_split=None)
    table = evaluate_features("noise", noise, private)
    assert list(table.index) == ["random", "random-10-fold"]
    tiny = private.groupby("genre").head(2).reset_index(drop=True)
    assert list(evaluate_features("tiny", noise[:6], tiny).index) == ["random"]
    with pytest.raises(SplitError):
        evaluate_features("one", noise[:1], private.head(1))


def test_features_that_do_not_describe_the_tracks_are_refused(tracks, noise):
    n = len(tracks)
    with pytest.raises(FeatureError, match=f"'few' have {n - 1} rows, and there are {n} tracks"):
        evaluate_features("few", noise[:-1], tracks)
    with pytest.raises(FeatureError, match="'one' have no rows"):
        evaluate_features("one", 3.0, tracks)
    with pytest.raises(FeatureError, match="not an array of numbers with one row per track"):
        evaluate_features("text", ["a"] * n, tracks)
    with pytest.raises(FeatureError, match="not an array of numbers with one row per track"):
        evaluate_features("ragged", [[1]] * (n - 1) + [[1, 2]], tracks)
    holes = noise.copy()
    holes[3, 2] = np.nan
    third = tracks["track_id"].iloc[3]
    with pytest.raises(FeatureError, match=f"of 1 tracks, such as {third}, are missing or inf"):
        evaluate_features("holes", holes, tracks)
    with pytest.raises(FeatureError, match="No head 'tree'. Choose one of linear probe, SVM"):
        evaluate_features("noise", noise, tracks, head="tree")


def test_a_function_that_fails_on_a_track_raises_a_sentence(tracks):
    with pytest.raises(FeatureError, match="some tracks have no sound"):
        evaluate_features("mine", len, tracks)
    paths = tracks.assign(path="music/jazz/" + tracks["track_id"] + ".wav")
    second = paths["path"].iloc[1]

    def fails(path):
        return [1 / (path != second)]

    sentence = f"'mine' of jazz/{tracks['track_id'].iloc[1]}.wav cannot be computed .ZeroDivision"
    with pytest.raises(FeatureError, match=sentence):
        evaluate_features("mine", fails, paths, progress=False)
    with pytest.raises(FeatureError, match="1 numbers for the first track and 2 for jazz/"):
        evaluate_features("mine", lambda path: [1] * (1 + (path == second)), paths, progress=False)
