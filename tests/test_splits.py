import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melgenre.collection import gtzan_facts
from melgenre.splits import (
    SplitError,
    artist_split,
    fault_filtered_split,
    protocols_for,
    random_split,
    shared_artists,
)


@st.composite
def collections(draw):
    """Tables of two to five genres with two to thirty tracks each."""
    rows = []
    for genre in range(draw(st.integers(2, 5))):
        for track in range(draw(st.integers(2, 30))):
            rows.append((f"{genre}/{track}", f"genre {genre}", f"{genre}-{track // 2}"))
    return pd.DataFrame(rows, columns=["track_id", "genre", "artist_id"])


@settings(max_examples=40, deadline=None)
@given(collections(), st.integers(0, 99))
def test_a_random_split_puts_each_track_on_one_side_and_each_genre_on_both(tracks, seed):
    split = random_split(tracks, seed=seed)
    assert set(split["split"]) == {"train", "valid"}
    assert (split.groupby("genre")["split"].nunique() == 2).all()
    for _, members in split.groupby("genre"):
        assert abs((members["split"] == "valid").sum() - 0.3 * len(members)) <= 1
    pd.testing.assert_frame_equal(split, random_split(tracks, seed=seed))
    pd.testing.assert_frame_equal(split.drop(columns="split"), tracks)


@settings(max_examples=40, deadline=None)
@given(collections(), st.integers(0, 99))
def test_an_artist_split_never_shares_an_artist(tracks, seed):
    tracks = tracks[tracks.groupby("genre")["artist_id"].transform("nunique") > 1]
    if tracks["genre"].nunique() < 2:
        return
    split = artist_split(tracks, seed=seed)
    assert shared_artists(split).empty
    assert (split.groupby("genre")["split"].nunique() == 2).all()


def test_the_fault_filtered_split_is_the_published_one():
    split = fault_filtered_split(gtzan_facts())
    assert split["split"].value_counts().to_dict() == {"train": 443, "test": 290, "valid": 197}
    # Its one slip: an artist with tracks to learn from and a track to be judged by.
    assert len(shared_artists(split)) == 1


def test_a_random_split_of_gtzan_leaks_and_that_is_told():
    leaks = shared_artists(random_split(gtzan_facts()))
    assert len(leaks) > 50
    assert set(leaks.columns) == {"artist_id", "train", "valid"}
    assert (leaks[["train", "valid"]] > 0).all(axis=None)


def test_the_most_honest_protocol_is_chosen():
    facts = gtzan_facts()
    assert protocols_for(facts) == ["random", "fault-filtered"]
    assert protocols_for(facts.drop(columns="fault_filtered_split")) == ["random", "artists-apart"]
    assert protocols_for(facts[["track_id", "genre"]]) == ["random"]


@pytest.mark.parametrize(
    "split, genres, sentence",
    [
        (random_split, ["jazz", "jazz", "jazz"], "1 genre.*needs two"),
        (random_split, [], "0 genre.*needs two"),
        (random_split, ["jazz", "jazz", "rock"], "Only one of the tracks is of genre 'rock'"),
        (artist_split, ["jazz", "jazz", "rock", "rock"], "too few artists"),
        (fault_filtered_split, ["jazz", "jazz", "rock", "rock"], "none of them"),
    ],
)
def test_what_cannot_be_split_gets_a_sentence(split, genres, sentence):
    tracks = pd.DataFrame({"track_id": range(len(genres)), "genre": genres, "artist_id": "one"})
    with pytest.raises(SplitError, match=sentence):
        split(tracks)


def test_unknown_artists_are_told():
    tracks = pd.DataFrame({"genre": ["a", "a", "b", "b"], "artist_id": None})
    with pytest.raises(SplitError, match="tracks of known artists"):
        artist_split(tracks)


def test_too_little_of_gtzan_for_the_published_split_is_told():
    few = gtzan_facts().groupby("genre").head(5)
    with pytest.raises(SplitError, match="too few of GTZAN's 1000 tracks"):
        fault_filtered_split(few)
