"""Train/validation/test splits and folds. Leaks are reported when a split is made.

The usual random split of GTZAN leaks: the same artist, album, even recording occurs in both parts,
and the accuracy comes out some 15 points too high. A *split* fills the column `split` with `train`,
`test` and, where the protocol has one, `valid`; *folds* fill the column `fold` with 1, 2, 3, …:
each is the test part once, and the others are trained on. A track that is left out has neither.
"""

import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from ..errors import MelgenreError, MelgenreWarning
from ..text import listed
from .genres import is_multi_label, one_row_per_genre
from .leaks import warn_leaks
from .stratification import stratify

TEST_SHARE = 0.3
"""Share of each genre's tracks in the test part of a split that is drawn."""

SHARES = {"train": 0.6, "test": 0.2, "valid": 0.2}
"""Of a split that is drawn where songs have several genres: the thresholds are chosen on `valid`.

The shares are those of Bogdanov et al., "The MTG-Jamendo dataset for automatic music tagging"
(2019).
"""


class SplitError(MelgenreError, ValueError):
    """A collection that cannot be split like this; the message says why and what to do."""


def random_split(tracks: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Split at random within each genre: 70 % train, 30 % test.

    Most GTZAN papers use this split. Artists are not separated. Where songs have several genres,
    `stratify` draws 60 % train, 20 % valid and 20 % test.

    Parameters
    ----------
    tracks
        With `track_id` and `genre`; rows of one track (its windows) stay together.

    Returns
    -------
    pd.DataFrame
        The tracks with the column `split`.

    Raises
    ------
    SplitError
        If there are fewer than two genres, or fewer than two tracks in one.
    """
    unique = _one_row_per_track(tracks)
    if is_multi_label(unique):
        return warn_leaks(_split_several_genres(tracks, unique, "track_id", seed))
    rng = np.random.default_rng(seed)
    split = pd.Series("train", index=unique["track_id"])
    for _, members in unique.groupby("genre"):
        n_test = np.clip(round(TEST_SHARE * len(members)), 1, len(members) - 1)
        split[rng.permutation(members["track_id"])[:n_test]] = "test"
    return warn_leaks(tracks.assign(split=tracks["track_id"].map(split)))


def random_folds(tracks: pd.DataFrame, *, n_folds: int = 10, seed: int = 0) -> pd.DataFrame:
    """Draw folds at random within each genre: the usual cross-validation.

    Artists are not separated.

    Parameters
    ----------
    tracks
        With `track_id` and `genre`; rows of one track stay together.

    Returns
    -------
    pd.DataFrame
        The tracks with the column `fold`, 1 to `n_folds`.

    Raises
    ------
    SplitError
        If there are fewer than two genres, or fewer tracks in one than folds.
    """
    unique = _one_row_per_track(tracks)
    sizes = one_row_per_genre(unique)["genre"].value_counts()
    if sizes.min() < n_folds:
        raise SplitError(
            f"Genre {sizes.idxmin()!r} has {sizes.min()} tracks, too few for one in each of "
            f"{n_folds} folds. Use random_split, or as many folds as it has tracks."
        )
    if is_multi_label(unique):
        shares = dict.fromkeys(range(1, n_folds + 1), 1 / n_folds)
        fold = stratify(unique, "track_id", shares, seed=seed).astype(int)
        return warn_leaks(tracks.assign(fold=tracks["track_id"].map(fold)))
    fold = pd.Series(0, index=unique["track_id"])
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(unique, unique["genre"])
    for number, (_, rows) in enumerate(folds, start=1):
        fold.iloc[rows] = number
    return warn_leaks(tracks.assign(fold=tracks["track_id"].map(fold)))


def group_split(tracks: pd.DataFrame, *, by: str = "artist_id", seed: int = 0) -> pd.DataFrame:
    """Split at random with every group in one part: 70 % train, 30 % test, nearly.

    With artists as groups this is the artist filter of Pampalk, Flexer and Widmer, "Improvements
    of audio-based music similarity and genre classification" (2005). Where songs have several
    genres, `stratify` draws 60 % train, 20 % valid and 20 % test. A genre of a single group
    cannot be tested, nor can one whose other groups are needed to train another genre: it is
    trained on, and a warning names it.

    Parameters
    ----------
    tracks
        With `track_id`, `genre` and the column `by`; tracks without a group are left out.
    by
        Any column: artist, album, folder, recording.

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
            f"No track has {'an' if by[0] in 'aeiou' else 'a'} {by}, so its groups cannot be "
            f"separated. Add a tracks.csv with the columns track_id and {by} to the folder, or use "
            "random_split, and name it beside the accuracy."
        )
    known = _one_row_per_track(tracks.dropna(subset=by), what=f"tracks with {by}")
    if is_multi_label(known):
        return warn_leaks(_split_several_genres(tracks, known, by, seed))
    part, untested = _draw_groups(known, by, np.random.default_rng(seed))
    notes = []
    if unknown := tracks["track_id"].nunique() - len(known):
        notes.append(f"{unknown} tracks without {by} are left out.")
    single = known.groupby("genre")[by].nunique() == 1
    if alone := [genre for genre in untested if single[genre]]:
        notes.append(f"Trained on but not tested, with one {by} each: {listed(alone)}.")
    if others := [genre for genre in untested if not single[genre]]:
        notes.append(f"Trained on but not tested, since other genres share {by}: {listed(others)}.")
    if notes:
        warnings.warn(" ".join(notes), MelgenreWarning, stacklevel=2)
    return warn_leaks(tracks.assign(split=tracks[by].map(part)))


def _draw_groups(known, by, rng):
    """The part of each group, and the genres without a group in the test part."""
    part = {}
    # Genres of few groups first, while their groups are still free: a group can have two genres.
    for genre in known.groupby("genre")[by].nunique().sort_values(kind="stable").index:
        members = known[known["genre"] == genre]
        sizes = members[by].value_counts()
        wanted, filled = (TEST_SHARE * len(members) if len(sizes) > 1 else 0), 0
        for group in rng.permutation(sorted(sizes.index)):
            # A group of two genres stays in the part that the first one gave it.
            if part.get(group) is None:
                part[group] = "test" if filled + sizes[group] / 2 <= wanted else "train"
            filled += sizes[group] * (part[group] == "test")
        if filled == len(members):  # all of them were put there with another genre
            part[sizes.index[-1]] = "train"
    tested = known[known[by].map(part) == "test"]["genre"]
    untested = sorted(set(known["genre"]) - set(tested))
    if known["genre"].nunique() - len(untested) < 2:
        raise SplitError(
            f"Too few groups of {by}: {listed(untested)} cannot be tested, and two genres are "
            "needed. Add tracks by others, or use random_split and name it beside the accuracy."
        )
    return part, untested


def _split_several_genres(tracks, known, by, seed):
    """The tracks with `split`, drawn by `stratify`; warns of what is left out or not tested."""
    part = stratify(known, by, SHARES, seed=seed)
    rows = one_row_per_genre(known)
    tested = set(rows.loc[rows[by].map(part) == "test", "genre"])
    if not tested:
        raise SplitError(
            f"Too few groups of {by}: all of them are needed for training. Add tracks by others, "
            "or use random_split and name it beside the result."
        )
    notes = []
    if unknown := tracks["track_id"].nunique() - len(known):
        notes.append(f"{unknown} tracks without {by} are left out.")
    if untested := sorted(set(rows["genre"]) - tested):
        notes.append(f"Trained on but not tested, with few {by} each: {listed(untested)}.")
    if notes:
        warnings.warn(" ".join(notes), MelgenreWarning, stacklevel=3)
    return tracks.assign(split=tracks[by].map(part))


def iter_folds(tracks: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Iterate over folds as splits: one fold is `test`, the others are `train`.

    Parameters
    ----------
    tracks
        With `fold`; or with `split`, and then it is the only one.

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
        part = np.where(fold == number, "test", "train").astype(object)
        yield tracks.assign(split=pd.Series(part, index=tracks.index).where(fold.notna()))


def held_out(tracks: pd.DataFrame) -> pd.DataFrame:
    """The evaluation set: the tracks whose `split` is `test`."""
    return tracks[tracks["split"] == "test"].reset_index(drop=True)


def _one_row_per_track(tracks, what="tracks"):
    """One row per track; raises for fewer than two genres, and for a genre with one track."""
    unique = tracks.drop_duplicates("track_id")
    sizes = one_row_per_genre(unique)["genre"].value_counts()
    if len(sizes) < 2:
        raise SplitError(
            f"The {what} have {len(sizes)} genre(s); at least two are needed. Add a folder for "
            "another genre."
        )
    if sizes.min() < 2:
        single = sorted(map(repr, sizes.index[sizes < 2]))
        have = (
            f"Genre {single[0]} has" if len(single) == 1 else f"Genres {listed(single)} each have"
        )
        raise SplitError(
            f"{have} one of the {what}; at least two are needed. Add more, or remove the genre."
        )
    return unique
