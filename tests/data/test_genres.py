"""Songs of several genres: from the table of tracks to its splits."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from melgenre.data.annotations import COLUMNS, apply_annotations
from melgenre.data.collection import describe_collection
from melgenre.data.genres import genre_lists, genre_matrix, is_multi_label, one_row_per_genre
from melgenre.data.leaks import find_leaks
from melgenre.data.metadata import CollectionError
from melgenre.data.protocols import strictest_protocol
from melgenre.data.splits import SHARES, SplitError, group_split, random_folds, random_split
from melgenre.data.stratification import stratify
from melgenre.data.tracks import find_tracks

pytestmark = pytest.mark.filterwarnings("ignore::melgenre.errors.MelgenreWarning")

GENRES = ["blues", "jazz", "metal", "punk", "rock"]


@st.composite
def collections(draw, least=2):
    """Tables of songs of one to three genres, each genre of at least some songs, by artists."""
    lists = st.lists(st.sampled_from(GENRES), min_size=1, max_size=3)
    genres = [[genre] for genre in GENRES for _ in range(least)]
    genres += draw(st.lists(lists, max_size=60))
    frame = pd.DataFrame({"track_id": [f"t{i}" for i in range(len(genres))], "genre": genres})
    frame["artist_id"] = [f"a{i % (len(genres) // 2)}" for i in range(len(genres))]
    return frame


def shares_by_genre(split):
    """The share of each genre's tracks in each part."""
    rows = one_row_per_genre(split)
    return pd.crosstab(rows["genre"], rows["split"], normalize="index")


def write_collection(folder, write_song, table):
    for track in ("rock/one", "rock/two", "jazz/three"):
        write_song(folder / f"{track}.wav", seconds=0.2)
    (folder / "tracks.csv").write_text(table)
    return find_tracks(folder)


def test_a_tracks_csv_gives_a_song_several_genres(tmp_path, write_song):
    table = "track_id,Genre,genres\nrock/one,ignored,punk; rock;punk\njazz/three,,blues\nx/y,,z\n"
    tracks = write_collection(tmp_path / "mine", write_song, table)
    genres = tracks.set_index("track_id")["genre"].to_dict()
    # The folder is a song's genre only where the table names none.
    assert genres == {"rock/one": ["punk", "rock"], "rock/two": ["rock"], "jazz/three": ["blues"]}
    assert "genres" not in tracks
    assert describe_collection(tracks).splitlines()[0].startswith("mine-")
    assert "3 tracks of 3 genres" in describe_collection(tracks)


def test_a_tracks_csv_without_genres_leaves_one_genre_per_song(tmp_path, write_song):
    tracks = write_collection(tmp_path / "mine", write_song, "track_id,genres\nrock/one,\n")
    assert tracks["genre"].tolist() == ["jazz", "rock", "rock"]
    assert not is_multi_label(tracks)


def test_genres_that_look_like_numbers_are_text(tmp_path, write_song):
    tracks = write_collection(tmp_path / "mine", write_song, "track_id,genres\nrock/one,1980\n")
    assert tracks["genre"].tolist() == [["jazz"], ["1980"], ["rock"]]


@settings(max_examples=30)
@given(collections())
def test_lists_and_their_matrix_say_the_same(tracks):
    matrix = genre_matrix(tracks["genre"], GENRES)
    assert [
        [genre for genre, has in zip(GENRES, row, strict=True) if has] for row in matrix
    ] == genre_lists(tracks).tolist()
    assert len(one_row_per_genre(tracks)) == matrix.sum()


def test_lists_may_be_tuples_arrays_or_single_names():
    tracks = pd.DataFrame({"genre": [("b", "a", "b"), np.array(["c"]), "d"]})
    assert genre_lists(tracks).tolist() == [["a", "b"], ["c"], ["d"]]


def test_a_song_without_a_genre_gets_a_sentence():
    tracks = pd.DataFrame({"track_id": ["a", "b"], "genre": [["rock"], []]})
    with pytest.raises(CollectionError, match="'b' has an empty list of genres"):
        random_split(tracks)


@pytest.mark.slow
@settings(max_examples=30)
@given(collections(), st.integers(0, 99))
def test_artists_stay_apart_and_every_genre_is_trained_on(tracks, seed):
    split = group_split(tracks, seed=seed)
    assert find_leaks(split).empty
    assert set(split["split"]) <= set(SHARES)
    assert set(one_row_per_genre(split[split["split"] == "train"])["genre"]) == set(GENRES)


@pytest.mark.slow
@settings(max_examples=8)
@given(collections(least=40), st.integers(0, 99))
def test_each_genre_is_divided_by_the_same_shares(tracks, seed):
    shares = shares_by_genre(random_split(tracks, seed=seed))
    for part, share in SHARES.items():
        assert shares[part].between(share - 0.06, share + 0.06).all()


def test_stratification_is_closer_to_the_shares_than_chance():
    rng = np.random.default_rng(0)
    genres = [list(rng.choice(GENRES, rng.integers(1, 4), p=[0.02, 0.08, 0.2, 0.3, 0.4]))
              for _ in range(500)]  # fmt: skip
    tracks = pd.DataFrame({"track_id": [f"t{i}" for i in range(500)], "genre": genres})

    def distance(split):
        return (shares_by_genre(split)["test"] - 0.2).abs().max()

    by_chance = tracks.assign(split=rng.permutation(["test"] * 100 + ["train"] * 400))
    assert distance(random_split(tracks)) < 0.02 < distance(by_chance)


@pytest.mark.slow
@settings(max_examples=15)
@given(collections(least=6), st.integers(0, 99))
def test_folds_hold_each_genre(tracks, seed):
    folds = random_folds(tracks, n_folds=3, seed=seed)
    rows = one_row_per_genre(folds)
    assert (pd.crosstab(rows["genre"], rows["fold"]) > 0).to_numpy().all()
    assert folds["fold"].between(1, 3).all()


@settings(max_examples=10)
@given(collections(), st.integers(0, 9))
def test_a_split_depends_on_the_seed_alone(tracks, seed):
    assert random_split(tracks, seed=seed).equals(random_split(tracks, seed=seed))


def test_a_genre_that_only_one_artist_plays_is_trained_on_and_named():
    genres = [["rock"], ["jazz"], ["jazz", "rock"], ["rock"], ["jazz"], ["odd", "rock"], ["odd"]]
    tracks = pd.DataFrame({"track_id": list("abcdefg"), "genre": genres})
    tracks["artist_id"] = ["1", "2", "3", "4", "5", "6", "6"]
    with pytest.warns(UserWarning, match="Trained on but not tested, .*artist_id.*: odd"):
        split = group_split(tracks)
    assert set(split.loc[split["artist_id"] == "6", "split"]) == {"train"}


def test_a_collection_of_one_genre_gets_a_sentence():
    tracks = pd.DataFrame({"track_id": list("abc"), "genre": [["rock"]] * 3})
    with pytest.raises(SplitError, match="at least two are needed"):
        random_split(tracks)
    tracks = tracks.assign(artist_id="1", genre=[["jazz", "rock"], ["jazz"], ["rock"]])
    with pytest.raises(SplitError, match="all of them are needed for training"):
        group_split(tracks)
    assert strictest_protocol(tracks) == "random"


def test_the_largest_artists_are_placed_while_there_is_room():
    tracks = pd.DataFrame({"genre": [["rock"]] * 100, "artist_id": ["big"] * 50 + list(range(50))})
    tracks["artist_id"] = tracks["artist_id"].astype(str)
    part = tracks["artist_id"].map(stratify(tracks, "artist_id", {"train": 0.7, "test": 0.3}))
    assert part.value_counts().to_dict() == {"train": 70, "test": 30}


def test_a_corrected_track_gets_a_list_of_genres():
    tracks = pd.DataFrame({"track_id": ["a", "b"], "genre": [["rock"], ["jazz"]]})
    rows = [["a", "rock", "mislabelled", "punk; rock", ""]]
    corrected = apply_annotations(tracks, pd.DataFrame(rows, columns=COLUMNS))
    assert corrected["genre"].tolist() == [["punk", "rock"], ["jazz"]]
