"""Which tracks a model learns from, and which it is judged by.

GTZAN's usual random split leaks: the same artist, album, even recording lands on both sides, and
the figure comes out some 20 points too high. A *split* fills the column `split` with `train`,
`valid` and, where the protocol has one, `test`; *folds* fill the column `fold` with 1, 2, 3, …,
each of which is judged once by a model that learned from the others. A track left out has none.
Whoever stands on two sides is told when the split is made, and by `find_leaks`.
"""

from contextlib import redirect_stdout

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from ..errors import MelgenreError

LEAK_COLUMNS = {"artist_id": "artist", "recording_id": "recording", "md5_wav": "exact duplicate"}
"""Columns whose equal values must not stand on two sides, and what they say."""

FEWEST = 5
"""Tracks of each genre that a published split needs on each side: with fewer it is no split of
GTZAN, but what is left of one."""


class SplitError(MelgenreError, ValueError):
    """A collection that cannot be split as asked; the message says why and what to do."""


def random_split(tracks, *, valid_share=0.3, seed=0):
    """Split at random within each genre, as the first project did: 70 % train, 30 % valid.

    The split that most GTZAN papers use. It knows nothing of artists, and says what it leaks.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `track_id` and `genre`; rows of one track (its windows) stay together.
    valid_share : float
        Share of each genre's tracks that become `valid`; at least one track stays on each side.
    seed : int

    Returns
    -------
    pd.DataFrame
        The tracks with the column `split`.

    Raises
    ------
    SplitError
        If there are fewer than two genres, or fewer than two tracks in one.
    """
    once = _one_row_per_track(tracks)
    rng = np.random.default_rng(seed)
    split = pd.Series("train", index=once["track_id"])
    for _, members in once.groupby("genre"):
        n_valid = np.clip(round(valid_share * len(members)), 1, len(members) - 1)
        split[rng.permutation(members["track_id"])[:n_valid]] = "valid"
    return _warn_leaks(tracks.assign(split=tracks["track_id"].map(split)))


def random_folds(tracks, *, n_folds=10, seed=0):
    """Ten folds at random within each genre: the usual cross-validation, and it leaks as usual.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `track_id` and `genre`; rows of one track stay together.
    n_folds, seed : int

    Returns
    -------
    pd.DataFrame
        The tracks with the column `fold`, 1 to `n_folds`.

    Raises
    ------
    SplitError
        If there are fewer than two genres, or fewer tracks in one than folds.
    """
    once = _one_row_per_track(tracks)
    sizes = once["genre"].value_counts()
    if sizes.min() < n_folds:
        raise SplitError(
            f"Genre {sizes.idxmin()!r} has {sizes.min()} tracks, too few for one in each of "
            f"{n_folds} folds. Use random_split, or as many folds as it has tracks."
        )
    fold = pd.Series(0, index=once["track_id"])
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(once, once["genre"])
    for number, (_, judged) in enumerate(folds, start=1):
        fold.iloc[judged] = number
    return _warn_leaks(tracks.assign(fold=tracks["track_id"].map(fold)))


def fault_filtered_split(tracks):
    """The published split of GTZAN without its faults and with its artists kept apart.

    443 tracks train, 197 valid, 290 test; 70 repetitions and distortions are left out. Kereliuk,
    Sturm and Larsen, "Deep Learning and Music Adversaries" (2015).

    Parameters
    ----------
    tracks : pd.DataFrame
        With `genre` and `fault_filtered_split`, as `find_tracks` fills it for GTZAN.

    Returns
    -------
    pd.DataFrame
        The tracks with the column `split`.

    Raises
    ------
    SplitError
        If these are not GTZAN's tracks, or a genre is missing on one side.
    """
    published = _published_column(tracks, "fault_filtered_split", "fault-filtered split")
    return _warn_leaks(_require_all_genres(tracks.assign(split=published), 3))


def fault_filtered_valid_split(tracks):
    """The fault-filtered split once every choice is made: `valid` is learned from as well.

    640 tracks train; the 290 of `test` become `valid`, since there is nothing left to watch.

    Parameters
    ----------
    tracks : pd.DataFrame
        As for `fault_filtered_split`.

    Returns
    -------
    pd.DataFrame
        The tracks with the column `split`.

    Raises
    ------
    SplitError
        As for `fault_filtered_split`.
    """
    published = _published_column(tracks, "fault_filtered_split", "fault-filtered split")
    _require_all_genres(tracks.assign(split=published), 3)
    return _warn_leaks(tracks.assign(split=published.replace({"valid": "train", "test": "valid"})))


def artist_folds(tracks):
    """The published three folds of GTZAN, each artist in one alone.

    948 tracks by 412 artists; 52 repetitions and distortions are left out. Foleis and Tavares,
    "Texture selection for automatic music genre classification" (2020), after Sturm's catalogue.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `genre` and `artist_fold`, as `find_tracks` fills it for GTZAN.

    Returns
    -------
    pd.DataFrame
        The tracks with the column `fold`: 1, 2, 3, or missing.

    Raises
    ------
    SplitError
        If these are not GTZAN's tracks, or a genre is missing in one fold.
    """
    published = _published_column(tracks, "artist_fold", "artist-filtered folds")
    return _warn_leaks(_require_all_genres(tracks.assign(fold=published), 3))


def group_split(tracks, *, by="artist_id", valid_share=0.3, seed=0):
    """Split at random with every group on one side alone: the honest split of your own music.

    A genre that is all of one group cannot be tested: it becomes `train`, and a line names it.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `track_id`, `genre` and the column `by`; tracks without a group are left out.
    by : str
        Any column: artist, album, folder, recording.
    valid_share : float
        Share of each genre's tracks that become `valid`, as nearly as whole groups allow.
    seed : int

    Returns
    -------
    pd.DataFrame
        The tracks with the column `split`.

    Raises
    ------
    SplitError
        If the column is missing or empty, or fewer than two genres have two groups.
    """
    if by not in tracks or tracks[by].isna().all():
        raise SplitError(
            f"No track has {'an' if by[0] in 'aeiou' else 'a'} {by}, so nothing can be kept apart. "
            f"A tracks.csv in the folder with the columns track_id and {by} tells it; or use "
            "random_split, and say so beside the figure."
        )
    known = _one_row_per_track(tracks.dropna(subset=by), what=f"tracks with {by}")
    if unknown := tracks["track_id"].nunique() - len(known):
        print(f"{unknown} tracks without {by} are left out.")
    rng = np.random.default_rng(seed)
    side, untested = {}, []
    # Genres of few groups first, while their groups are still free: some stand in two genres.
    for genre in known.groupby("genre")[by].nunique().sort_values(kind="stable").index:
        members = known[known["genre"] == genre]
        sizes = members[by].value_counts()
        wanted, filled = (valid_share * len(members) if len(sizes) > 1 else 0), 0
        for group in rng.permutation(sorted(sizes.index)):
            # A group of two genres stays on the side of the first.
            if side.get(group) is None:
                side[group] = "valid" if filled + sizes[group] / 2 <= wanted else "train"
            filled += sizes[group] * (side[group] == "valid")
        if filled == len(members):
            raise SplitError(
                f"All {by} of genre {genre!r} are on the valid side with another genre. Add tracks "
                "of others, or use random_split and say so beside the figure."
            )
        if not filled:
            untested.append(genre)
    if known["genre"].nunique() - len(untested) < 2:
        raise SplitError(
            f"Too few groups of {by}: {', '.join(untested)} cannot be tested, and two genres are "
            "needed. Add tracks of others, or use random_split and say so beside the figure."
        )
    if untested:
        print(f"Not tested, only learned from, because each is of one {by}: {', '.join(untested)}.")
    return _warn_leaks(tracks.assign(split=tracks[by].map(side)))


PROTOCOLS = {
    "random": random_split,
    "random-10-fold": random_folds,
    "fault-filtered": fault_filtered_split,
    "fault-filtered-train+valid": fault_filtered_valid_split,
    "artist-3-fold": artist_folds,
    "artist-split": group_split,
}
"""Each protocol by the name that stands beside its figures."""


def protocols_for(tracks, *, folds=False):
    """The usual random split, and the most honest split that this collection allows.

    Where artists cannot be kept apart, a line says why.

    Parameters
    ----------
    tracks : pd.DataFrame
    folds : bool
        Cross-validation, where the collection is large enough for it.

    Returns
    -------
    list of str
        Names in `PROTOCOLS`; the second is missing where artists cannot be kept apart.

    Raises
    ------
    SplitError
        If the tracks cannot even be split at random.
    """
    usual = ["random-10-fold", "random"] if folds else ["random"]
    honest = ["artist-3-fold" if folds else "fault-filtered", "artist-split"]
    possible = []
    for names in (usual, honest):
        for name in names:
            try:
                with redirect_stdout(None):  # only tried: what it leaks is told when it is made
                    PROTOCOLS[name](tracks)
            except SplitError as error:
                reason = error
            else:
                possible.append(name)
                break
        else:
            if not possible:
                raise reason
            print(f"No split of these tracks keeps artists apart. {reason}")
    return possible


def iter_folds(tracks):
    """Folds as one split after the other: what is judged is `valid`, the other folds `train`.

    A table that has a `split` already comes out as it is.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `split` or `fold`.

    Yields
    ------
    pd.DataFrame
        The tracks with the column `split`.
    """
    if "split" in tracks:
        yield tracks
        return
    fold = tracks["fold"].astype(float)  # a published fold is missing where a track is left out
    for number in sorted(fold.dropna().unique()):
        side = np.where(fold == number, "valid", "train").astype(object)
        yield tracks.assign(split=pd.Series(side, index=tracks.index).where(fold.notna()))


def find_leaks(tracks):
    """Artists, recordings and exact duplicates that stand on two sides: where a figure leaks.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `split` or `fold`, and any of the columns in `LEAK_COLUMNS`.

    Returns
    -------
    pd.DataFrame
        A row a leak: `kind`, `name`, how many `tracks` and, in `where`, which on which side.
    """
    side = "split" if "split" in tracks else "fold"
    leaks = []
    for column, kind in LEAK_COLUMNS.items():
        if column not in tracks:
            continue
        known = tracks.dropna(subset=[column, side])
        shared = known.groupby(column)[side].transform("nunique") > 1
        for name, members in known[shared].groupby(column):
            where = members.groupby(side)["track_id"].agg(lambda ids: sorted(set(ids))).to_dict()
            leaks.append((kind, name, members["track_id"].nunique(), where))
    return pd.DataFrame(leaks, columns=["kind", "name", "tracks", "where"])


def describe_leaks(tracks):
    """`find_leaks` in a sentence, or an empty string where nothing leaks."""
    leaks = find_leaks(tracks)
    if leaks.empty:
        return ""
    parts = []
    for kind, of_kind in leaks.groupby("kind", sort=False):
        names = ", ".join(min(sum(where.values(), [])) for where in of_kind["where"][:3])
        more = ", …" if len(of_kind) > 3 else ""
        plural = "" if len(of_kind) == 1 else "s"
        parts.append(
            f"{len(of_kind)} {kind}{plural} ({of_kind['tracks'].sum()} tracks: {names}{more})"
        )
    return (
        f"This split leaks: {'; '.join(parts)} on more than one side. A figure from it may "
        "flatter. find_leaks(split) lists them all."
    )


def _warn_leaks(tracks):
    """The tracks, after saying what their split leaks."""
    sentence = describe_leaks(tracks)
    if sentence:
        print(sentence)
    return tracks


def _one_row_per_track(tracks, what="tracks"):
    """One row a track; refuses fewer than two genres, and a genre of a single track."""
    once = tracks.drop_duplicates("track_id")
    sizes = once["genre"].value_counts()
    if len(sizes) < 2:
        raise SplitError(
            f"There are {what} of {len(sizes)} genre(s); telling genres apart needs two. Add a "
            "folder for another genre."
        )
    if sizes.min() < 2:
        lonely = ", ".join(sorted(map(repr, sizes.index[sizes < 2])))
        raise SplitError(
            f"Only one of the {what} is of genre {lonely}: one is needed to learn from and one to "
            "judge by. Add more, or drop the genre."
        )
    return once


def _published_column(tracks, column, name):
    """A published column of GTZAN's, or a sentence that these are not GTZAN's tracks."""
    if column not in tracks or tracks[column].isna().all():
        raise SplitError(
            f"The {name} is a list of GTZAN's tracks, and these are none of them. "
            "Use group_split or random_split for another collection."
        )
    return tracks[column]


def _require_all_genres(tracks, n_sides):
    """Refuse a published split of which too little is there."""
    side = "split" if "split" in tracks else "fold"
    counts = pd.crosstab(tracks["genre"], tracks[side]).reindex(tracks["genre"].unique())
    fewest = (counts if counts.shape[1] == n_sides else 0 * counts).min(axis=1).fillna(0)
    if len(fewest) < 2 or fewest.min() < FEWEST:
        raise SplitError(
            f"Too few of GTZAN's 1000 tracks are here for this split: of {fewest.idxmin()!r} one "
            f"side has {fewest.min():.0f}, and {FEWEST} are needed. Get all of them, or use "
            "group_split, which keeps artists apart."
        )
    return tracks


def held_out(tracks):
    """The tracks that a figure is taken from: `test` where the split has one, else `valid`."""
    side = "test" if (tracks["split"] == "test").any() else "valid"
    return tracks[tracks["split"] == side].reset_index(drop=True)
