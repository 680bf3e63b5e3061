"""Which tracks a network learns from, and which it is judged by.

GTZAN's usual random split leaks: the same artist, album, even recording lands on both sides, and
the figure comes out some 20 points too high. Each split here fills the column `split` with
`train`, `valid` and, where the protocol has one, `test`; a track left out has none. Artists that
stand on two sides are told by `shared_artists`, so no leak passes unseen.
"""

import numpy as np
import pandas as pd


class SplitError(ValueError):
    """A collection that cannot be split as asked; the message says why and what to do."""


def random_split(tracks, *, valid_share=0.3, seed=0):
    """Split at random within each genre, as the first project did: 70 % train, 30 % valid.

    The split that most GTZAN papers use. It knows nothing of artists; see `shared_artists`.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `genre`.
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
    _check_genres(tracks)
    rng = np.random.default_rng(seed)
    split = pd.Series("train", index=tracks.index)
    for _, members in tracks.groupby("genre"):
        n_valid = np.clip(round(valid_share * len(members)), 1, len(members) - 1)
        split[rng.permutation(members.index)[:n_valid]] = "valid"
    return tracks.assign(split=split)


def artist_split(tracks, *, valid_share=0.3, seed=0):
    """Split at random with every artist on one side alone.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `genre` and `artist_id`; tracks of unknown artists are left out.
    valid_share : float
        Share of each genre's tracks that become `valid`, as nearly as whole artists allow.
    seed : int

    Returns
    -------
    pd.DataFrame
        The tracks with the column `split`.

    Raises
    ------
    SplitError
        If artists are unknown, or a genre has fewer than two.
    """
    known = tracks.dropna(subset="artist_id") if "artist_id" in tracks else tracks.head(0)
    _check_genres(known, what="tracks of known artists")
    rng = np.random.default_rng(seed)
    side = {}
    for genre, members in known.groupby("genre"):
        sizes = members["artist_id"].value_counts()
        wanted, filled = valid_share * len(members), 0
        for artist in rng.permutation(sorted(sizes.index)):
            # An artist of two genres stays on the side of the first.
            if side.get(artist) is None:
                side[artist] = "valid" if filled + sizes[artist] / 2 <= wanted else "train"
            filled += sizes[artist] * (side[artist] == "valid")
        if not 0 < filled < len(members):
            raise SplitError(
                f"Genre {genre!r} has too few artists to keep them apart. Add tracks of other "
                "artists, or use random_split and say so beside the figure."
            )
    return tracks.assign(split=tracks["artist_id"].map(side))


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
    if "fault_filtered_split" not in tracks or tracks["fault_filtered_split"].isna().all():
        raise SplitError(
            "The fault-filtered split is a list of GTZAN's tracks, and these are none of them. "
            "Use artist_split or random_split for another collection."
        )
    split = tracks.assign(split=tracks["fault_filtered_split"])
    sides = split.groupby("genre")["split"].agg(lambda side: set(side.dropna()))
    for genre, present in sides.items():
        if len(present) < 3:
            missing = ", ".join(sorted({"train", "valid", "test"} - present))
            raise SplitError(
                f"Of {genre!r} no {missing} tracks are there: too few of GTZAN's 1000 tracks for "
                "the fault-filtered split. Get all of them, or use random_split."
            )
    return split


PROTOCOLS = {
    "random": random_split,
    "fault-filtered": fault_filtered_split,
    "artists-apart": artist_split,
}
"""Each protocol by the name that stands beside its figures."""


def protocols_for(tracks):
    """The random protocol, and the most honest one that this collection allows.

    Returns
    -------
    list of str
        Names in `PROTOCOLS`; the second is missing where artists are unknown.
    """
    for name in ("fault-filtered", "artists-apart"):
        try:
            PROTOCOLS[name](tracks)
        except SplitError:
            continue
        return ["random", name]
    return ["random"]


def shared_artists(tracks):
    """Artists that stand on more than one side of a split: where its figure leaks.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `artist_id` and `split`.

    Returns
    -------
    pd.DataFrame
        A row an artist: `artist_id`, and its number of tracks on each side.
    """
    known = tracks.dropna(subset=["artist_id", "split"])
    counts = pd.crosstab(known["artist_id"], known["split"])
    return counts[(counts > 0).sum(axis=1) > 1].reset_index().rename_axis(columns=None)


def _check_genres(tracks, what="tracks"):
    """Refuse a collection of fewer than two genres, or with a genre of a single track."""
    sizes = tracks["genre"].value_counts()
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
