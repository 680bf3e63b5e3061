import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from melgenre.data.gtzan import gtzan_metadata
from melgenre.data.splits import (
    PROTOCOLS,
    SplitError,
    artist_folds,
    describe_leaks,
    fault_filtered_split,
    find_leaks,
    group_split,
    iter_folds,
    protocols_for,
    random_folds,
    random_split,
)


@st.composite
def collections(draw):
    """Tables of two to five genres with two to thirty tracks each."""
    rows = []
    for genre in range(draw(st.integers(2, 5))):
        for track in range(draw(st.integers(2, 30))):
            rows.append((f"{genre}/{track}", f"genre {genre}", f"{genre}-{track // 2}"))
    return pd.DataFrame(rows, columns=["track_id", "genre", "artist_id"])


@settings(max_examples=40)
@given(collections(), st.integers(0, 99))
def test_a_random_split_puts_each_track_on_one_side_and_each_genre_on_both(tracks, seed):
    split = random_split(tracks, seed=seed)
    assert set(split["split"]) == {"train", "valid"}
    assert (split.groupby("genre")["split"].nunique() == 2).all()
    for _, members in split.groupby("genre"):
        assert abs((members["split"] == "valid").sum() - 0.3 * len(members)) <= 1
    pd.testing.assert_frame_equal(split, random_split(tracks, seed=seed))
    pd.testing.assert_frame_equal(split.drop(columns="split"), tracks)


@settings(max_examples=40)
@given(collections(), st.integers(0, 99))
def test_an_group_split_never_shares_an_artist(tracks, seed):
    tracks = tracks[tracks.groupby("genre")["artist_id"].transform("nunique") > 1]
    if tracks["genre"].nunique() < 2:
        return
    split = group_split(tracks, seed=seed)
    assert find_leaks(split).empty
    assert (split.groupby("genre")["split"].nunique() == 2).all()


def test_the_fault_filtered_split_is_the_published_one():
    split = fault_filtered_split(gtzan_metadata())
    assert split["split"].value_counts().to_dict() == {"train": 443, "test": 290, "valid": 197}
    # Its one slip: an artist with tracks to learn from and a track to be judged by.
    leaks = find_leaks(split)
    assert leaks["kind"].tolist() == ["artist"]
    assert {"train", "test"} <= set(leaks["where"].iloc[0])


def test_the_published_folds_keep_artists_apart():
    folds = artist_folds(gtzan_metadata())
    assert folds["fold"].notna().sum() == 948
    assert find_leaks(folds).empty
    judged = [split[split["split"] == "valid"]["track_id"] for split in iter_folds(folds)]
    assert len(judged) == 3
    assert sorted(pd.concat(judged)) == sorted(folds.dropna(subset="fold")["track_id"])


def test_with_valid_the_same_290_are_judged_by_640():
    split = PROTOCOLS["fault-filtered-train+valid"](gtzan_metadata())
    assert split["split"].value_counts().to_dict() == {"train": 640, "valid": 290}
    judged = split[split["split"] == "valid"]
    assert set(judged["fault_filtered_split"]) == {"test"}


def test_a_random_split_of_gtzan_leaks_and_that_is_told(capsys):
    split = random_split(gtzan_metadata())
    told = capsys.readouterr().out
    leaks = find_leaks(split)
    artists = leaks[leaks["kind"] == "artist"]
    assert len(artists) > 50
    assert f"{len(artists)} artists ({artists['tracks'].sum()} tracks: " in told
    for leak in leaks.itertuples():
        assert len(leak.where) == 2
        assert sum(map(len, leak.where.values())) == leak.tracks
        sides = split.set_index("track_id")["split"]
        assert all((sides[ids] == side).all() for side, ids in leak.where.items())
    duplicates = leaks[leaks["kind"] == "exact duplicate"]
    assert 0 < len(duplicates) <= 14  # GTZAN has fourteen pairs


def test_what_does_not_leak_is_not_told(capsys):
    artist_folds(gtzan_metadata())
    assert capsys.readouterr().out == ""
    assert describe_leaks(artist_folds(gtzan_metadata())) == ""


@settings(max_examples=30)
@given(collections(), st.integers(0, 99))
def test_windows_of_a_track_never_part(tracks, seed):
    windows = pd.concat([tracks.assign(window=w) for w in range(3)], ignore_index=True)
    windows = windows.sample(frac=1, random_state=seed).reset_index(drop=True)
    split = random_split(windows, seed=seed)
    assert (split.groupby("track_id")["split"].nunique() == 1).all()
    folds = random_folds(windows, n_folds=2, seed=seed)
    assert (folds.groupby("track_id")["fold"].nunique() == 1).all()


@settings(max_examples=30)
@given(collections(), st.integers(2, 10), st.integers(0, 99))
def test_each_track_is_judged_in_one_fold_and_each_genre_in_all(tracks, n_folds, seed):
    tracks = tracks[tracks.groupby("genre")["track_id"].transform("size") >= n_folds]
    if tracks["genre"].nunique() < 2:
        return
    folds = random_folds(tracks, n_folds=n_folds, seed=seed)
    assert folds["fold"].between(1, n_folds).all()
    assert (folds.groupby("genre")["fold"].nunique() == n_folds).all()
    for split in iter_folds(folds):
        assert set(split["split"]) == {"train", "valid"}


def test_any_column_can_be_kept_apart():
    tracks = pd.DataFrame({"track_id": list("abcdefgh"), "genre": ["x", "y"] * 4})
    tracks["album"] = ["1", "2", "1", "2", "3", "4", "3", "4"]
    split = group_split(tracks, by="album")
    assert (split.groupby("album")["split"].nunique() == 1).all()


def test_the_most_honest_protocol_is_chosen():
    facts = gtzan_metadata()
    assert protocols_for(facts) == ["random", "fault-filtered"]
    assert protocols_for(facts.drop(columns="fault_filtered_split")) == ["random", "artist-split"]
    assert protocols_for(facts[["track_id", "genre"]]) == ["random"]


@pytest.mark.parametrize(
    "split, genres, sentence",
    [
        (random_split, ["jazz", "jazz", "jazz"], "1 genre.*needs two"),
        (random_split, [], "0 genre.*needs two"),
        (random_split, ["jazz", "jazz", "rock"], "Only one of the tracks is of genre 'rock'"),
        (group_split, ["jazz", "jazz", "rock", "rock"], "Too few groups of artist_id"),
        (fault_filtered_split, ["jazz", "jazz", "rock", "rock"], "none of them"),
        (artist_folds, ["jazz", "jazz", "rock", "rock"], "none of them"),
        (random_folds, ["jazz", "jazz", "rock", "rock"], "'jazz' has 2 tracks.*10 folds"),
    ],
)
def test_what_cannot_be_split_gets_a_sentence(split, genres, sentence):
    tracks = pd.DataFrame({"track_id": range(len(genres)), "genre": genres, "artist_id": "one"})
    with pytest.raises(SplitError, match=sentence):
        split(tracks)


def test_unknown_artists_are_told():
    tracks = pd.DataFrame({"track_id": list("cdef"), "genre": list("aabb"), "artist_id": None})
    with pytest.raises(SplitError, match="No track has an artist_id.*random_split"):
        group_split(tracks)


@pytest.fixture
def mini():
    """The tracks of gtzan_mini: the first ten of each genre; of four genres all by one artist."""
    facts = gtzan_metadata()
    return facts[facts["track_id"].str[-5:].astype(int) < 10].reset_index(drop=True)


def test_artists_are_kept_apart_where_the_published_split_has_too_few_tracks(mini, capsys):
    assert protocols_for(mini) == ["random", "artist-split"]
    assert protocols_for(mini, folds=True) == ["random-10-fold", "artist-split"]
    assert capsys.readouterr().out == ""
    for seed in range(5):
        split = group_split(mini, seed=seed)
        assert find_leaks(split).empty
        sides = split.groupby("genre")["split"].nunique()
        of_one_artist = ["blues", "classical", "reggae", "rock"]
        assert sorted(sides.index[sides == 1]) == of_one_artist
        assert (split.loc[split["genre"].isin(of_one_artist), "split"] == "train").all()
        assert "one artist_id: blues, classical, reggae, rock." in capsys.readouterr().out


def test_a_collection_whose_artists_cannot_be_kept_apart_gets_the_reason(mini, capsys):
    pair = mini[mini["genre"].isin(["classical", "pop"])]
    assert protocols_for(pair, folds=True) == ["random-10-fold"]
    assert "keeps artists apart. Too few groups of artist_id: classical" in capsys.readouterr().out
    with pytest.raises(SplitError, match="telling genres apart needs two"):
        protocols_for(mini[mini["genre"] == "pop"])
    assert protocols_for(mini[["track_id", "genre"]]) == ["random"]
    assert "No track has an artist_id" in capsys.readouterr().out


def test_too_little_of_gtzan_for_the_published_split_is_told():
    few = gtzan_metadata().groupby("genre").head(5)
    with pytest.raises(SplitError, match="Too few of GTZAN's 1000 tracks"):
        fault_filtered_split(few)
