import warnings

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from melgenre.data.gtzan import gtzan_metadata
from melgenre.data.gtzan_splits import artist_folds, fault_filtered_split
from melgenre.data.leaks import LeakWarning, describe_leaks, find_leaks
from melgenre.data.protocols import (
    PROTOCOLS,
    apply_protocol,
    protocols_for,
    strictest_protocol,
)
from melgenre.data.splits import (
    SplitError,
    group_split,
    held_out,
    iter_folds,
    random_folds,
    random_split,
)
from melgenre.errors import MelgenreWarning

pytestmark = pytest.mark.filterwarnings("ignore::melgenre.errors.MelgenreWarning")


@st.composite
def collections(draw):
    """Tables of two to five genres with two to thirty tracks each."""
    rows = []
    for genre in range(draw(st.integers(2, 5))):
        for track in range(draw(st.integers(2, 30))):
            rows.append((f"{genre}/{track}", f"genre {genre}", f"{genre}-{track // 2}"))
    return pd.DataFrame(rows, columns=["track_id", "genre", "artist_id"])


@pytest.mark.slow
@settings(max_examples=40)
@given(collections(), st.integers(0, 99))
def test_a_random_split_puts_each_track_in_one_part_and_each_genre_in_both(tracks, seed):
    split = random_split(tracks, seed=seed)
    assert set(split["split"]) == {"train", "test"}
    assert (split.groupby("genre")["split"].nunique() == 2).all()
    for _, members in split.groupby("genre"):
        assert abs((members["split"] == "test").sum() - 0.3 * len(members)) <= 1
    pd.testing.assert_frame_equal(split, random_split(tracks, seed=seed))
    pd.testing.assert_frame_equal(split.drop(columns="split"), tracks)


@settings(max_examples=40)
@given(collections(), st.integers(0, 99))
def test_a_group_split_never_shares_an_artist(tracks, seed):
    tracks = tracks[tracks.groupby("genre")["artist_id"].transform("nunique") > 1]
    if tracks["genre"].nunique() < 2:
        return
    split = group_split(tracks, seed=seed)
    assert find_leaks(split).empty
    assert (split.groupby("genre")["split"].nunique() == 2).all()


def test_the_fault_filtered_split_is_the_published_one():
    split = fault_filtered_split(gtzan_metadata())
    assert split["split"].value_counts().to_dict() == {"train": 443, "test": 290, "valid": 197}
    # Its one leak: an artist with training tracks and a test track.
    leaks = find_leaks(split)
    assert leaks["kind"].tolist() == ["artist"]
    assert {"train", "test"} <= set(leaks["where"].iloc[0])


def test_the_published_folds_keep_artists_apart():
    folds = artist_folds(gtzan_metadata())
    assert folds["fold"].notna().sum() == 948
    assert find_leaks(folds).empty
    tested = [held_out(split)["track_id"] for split in iter_folds(folds)]
    assert len(tested) == 3
    assert sorted(pd.concat(tested)) == sorted(folds.dropna(subset="fold")["track_id"])


def test_with_train_and_valid_joined_the_test_part_is_the_same():
    split = apply_protocol(gtzan_metadata(), "fault-filtered-train+valid")
    assert split["split"].value_counts().to_dict() == {"train": 640, "test": 290}
    published = fault_filtered_split(gtzan_metadata())
    assert held_out(split)["track_id"].equals(held_out(published)["track_id"])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_names_its_evaluated_part_test(name):
    for split in iter_folds(apply_protocol(gtzan_metadata(), name)):
        parts = set(split["split"].dropna())
        assert {"train", "test"} <= parts <= {"train", "valid", "test"}
        assert len(held_out(split)) == (split["split"] == "test").sum() > 0


def test_a_protocol_takes_the_seed_if_and_only_if_it_is_drawn():
    for name, protocol in PROTOCOLS.items():
        one, two = (apply_protocol(gtzan_metadata(), name, seed) for seed in (0, 1))
        assert one.equals(two) != protocol.seeded, name


def test_an_unknown_protocol_gets_a_sentence():
    with pytest.raises(SplitError, match="No protocol 'honest'. Choose one of random, "):
        apply_protocol(gtzan_metadata(), "honest")


def test_a_random_split_of_gtzan_leaks_and_warns_once():
    with pytest.warns(LeakWarning) as warned:
        split = random_split(gtzan_metadata())
    assert len(warned) == 1
    leaks = find_leaks(split)
    artists = leaks[leaks["kind"] == "artist"]
    assert len(artists) > 50
    counted = f"{len(artists)} artists ({artists['tracks'].sum()} tracks: "
    assert counted in str(warned[0].message)
    for leak in leaks.itertuples():
        assert len(leak.where) == 2
        assert sum(map(len, leak.where.values())) == leak.tracks
        parts = split.set_index("track_id")["split"]
        assert all((parts[ids] == part).all() for part, ids in leak.where.items())
    duplicates = leaks[leaks["kind"] == "exact duplicate"]
    assert 0 < len(duplicates) <= 14  # GTZAN has fourteen pairs


@pytest.mark.filterwarnings("error")
def test_a_split_without_leaks_gives_no_warning():
    assert describe_leaks(artist_folds(gtzan_metadata())) == ""


@pytest.mark.slow
@settings(max_examples=30)
@given(collections(), st.integers(0, 99))
def test_windows_of_a_track_stay_together(tracks, seed):
    windows = pd.concat([tracks.assign(window=w) for w in range(3)], ignore_index=True)
    windows = windows.sample(frac=1, random_state=seed).reset_index(drop=True)
    split = random_split(windows, seed=seed)
    assert (split.groupby("track_id")["split"].nunique() == 1).all()
    folds = random_folds(windows, n_folds=2, seed=seed)
    assert (folds.groupby("track_id")["fold"].nunique() == 1).all()


@settings(max_examples=30)
@given(collections(), st.integers(2, 10), st.integers(0, 99))
def test_each_track_is_tested_in_one_fold_and_each_genre_in_all(tracks, n_folds, seed):
    tracks = tracks[tracks.groupby("genre")["track_id"].transform("size") >= n_folds]
    if tracks["genre"].nunique() < 2:
        return
    folds = random_folds(tracks, n_folds=n_folds, seed=seed)
    assert folds["fold"].between(1, n_folds).all()
    assert (folds.groupby("genre")["fold"].nunique() == n_folds).all()
    for split in iter_folds(folds):
        assert set(split["split"]) == {"train", "test"}


@st.composite
def shared_artists(draw):
    """Tables of up to 60 genres with two to six tracks each, by artists of several genres."""
    artists = draw(st.integers(4, 40))
    rows = []
    for genre in range(draw(st.integers(2, 60))):
        for track in range(draw(st.integers(2, 6))):
            rows.append((f"{genre}/{track}", f"genre {genre}", draw(st.integers(0, artists))))
    return pd.DataFrame(rows, columns=["track_id", "genre", "artist_id"])


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(shared_artists(), st.integers(0, 9))
def test_artists_of_several_genres_are_separated_and_every_genre_is_trained(tracks, seed):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            split = group_split(tracks, seed=seed)
        except SplitError as error:
            assert "Too few groups of artist_id" in str(error)
            return
    assert find_leaks(split).empty
    train, test = (set(split.loc[split["split"] == part, "genre"]) for part in ("train", "test"))
    assert train == set(tracks["genre"])
    untested = sorted(train - test)
    notes = " ".join(str(one.message) for one in caught)
    assert bool(untested) == ("Trained on but not tested" in notes)
    assert len(notes) < 600  # however many genres there are


def test_groups_can_come_from_any_column():
    tracks = pd.DataFrame({"track_id": list("abcdefgh"), "genre": ["x", "y"] * 4})
    tracks["album"] = ["1", "2", "1", "2", "3", "4", "3", "4"]
    split = group_split(tracks, by="album")
    assert (split.groupby("album")["split"].nunique() == 1).all()


def test_the_strictest_protocol_is_chosen():
    facts = gtzan_metadata()
    assert protocols_for(facts) == ["random", "fault-filtered"]
    assert protocols_for(facts.drop(columns="fault_filtered_split")) == ["random", "artist-split"]
    assert protocols_for(facts[["track_id", "genre"]]) == ["random"]
    assert strictest_protocol(facts) == "fault-filtered"


@pytest.mark.parametrize(
    "split, genres, sentence",
    [
        (random_split, ["jazz", "jazz", "jazz"], "1 genre.*at least two"),
        (random_split, [], "0 genre.*at least two"),
        (
            random_split,
            ["jazz", "jazz", "rock"],
            "Genre 'rock' has one of the tracks; at least two",
        ),
        (group_split, ["jazz", "jazz", "rock", "rock"], "Too few groups of artist_id"),
        (fault_filtered_split, ["jazz", "jazz", "rock", "rock"], "this is not GTZAN"),
        (artist_folds, ["jazz", "jazz", "rock", "rock"], "this is not GTZAN"),
        (random_folds, ["jazz", "jazz", "rock", "rock"], "'jazz' has 2 tracks.*10 folds"),
    ],
)
def test_a_collection_that_cannot_be_split_gets_a_sentence(split, genres, sentence):
    tracks = pd.DataFrame({"track_id": range(len(genres)), "genre": genres, "artist_id": "one"})
    with pytest.raises(SplitError, match=sentence):
        split(tracks)


def test_unknown_artists_get_a_sentence():
    tracks = pd.DataFrame({"track_id": list("cdef"), "genre": list("aabb"), "artist_id": None})
    with pytest.raises(SplitError, match="No track has an artist_id.*random_split"):
        group_split(tracks)


@pytest.fixture
def mini():
    """The tracks of gtzan_mini: the first ten of each genre; of four genres all by one artist."""
    facts = gtzan_metadata()
    return facts[facts["track_id"].str[-5:].astype(int) < 10].reset_index(drop=True)


@pytest.mark.filterwarnings("error")
def test_trying_a_protocol_gives_no_warning(mini):
    assert protocols_for(mini) == ["random", "artist-split"]
    assert protocols_for(mini, folds=True) == ["random-10-fold", "artist-split"]


@pytest.mark.parametrize("seed", range(5))
def test_artists_are_separated_where_the_published_split_has_too_few_tracks(mini, seed):
    with pytest.warns(MelgenreWarning, match="one artist_id each: blues, classical, reggae, rock."):
        split = group_split(mini, seed=seed)
    assert find_leaks(split).empty
    parts = split.groupby("genre")["split"].nunique()
    of_one_artist = ["blues", "classical", "reggae", "rock"]
    assert sorted(parts.index[parts == 1]) == of_one_artist
    assert (split.loc[split["genre"].isin(of_one_artist), "split"] == "train").all()


def test_a_collection_whose_artists_cannot_be_separated_gets_the_reason(mini):
    pair = mini[mini["genre"].isin(["classical", "pop"])]
    with pytest.warns(MelgenreWarning, match="no artist-filtered split. Too few groups of artist"):
        assert protocols_for(pair, folds=True) == ["random-10-fold"]
    with pytest.raises(SplitError, match="at least two are needed"):
        protocols_for(mini[mini["genre"] == "pop"])
    with pytest.warns(MelgenreWarning, match="No track has an artist_id"):
        assert protocols_for(mini[["track_id", "genre"]]) == ["random"]


def test_too_little_of_gtzan_for_the_published_split_gets_a_sentence():
    few = gtzan_metadata().groupby("genre").head(5)
    with pytest.raises(SplitError, match="Too few of GTZAN's 1000 tracks"):
        fault_filtered_split(few)
