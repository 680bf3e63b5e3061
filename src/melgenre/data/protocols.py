"""The table of protocols: how collections are split for evaluations."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from ..errors import MelgenreWarning
from .gtzan_splits import artist_folds, fault_filtered_split, fault_filtered_train_valid_split
from .splits import SplitError, group_split, random_folds, random_split


@dataclass(frozen=True)
class Protocol:
    """How a collection is split for an evaluation.

    Attributes
    ----------
    name
        Stands beside each accuracy.
    function
        The table of tracks -> the same with `split` or `fold`.
    title
        For tables and plots.
    seeded
        Whether the function takes a `seed`.
    """

    name: str
    function: Callable[..., pd.DataFrame]
    title: str
    seeded: bool = False


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("random", random_split, "random 70/30", seeded=True),
        Protocol("random-10-fold", random_folds, "random 10-fold", seeded=True),
        Protocol("artist-3-fold", artist_folds, "3-fold, artist-filtered"),
        Protocol("fault-filtered", fault_filtered_split, "fault-filtered"),
        Protocol(
            "fault-filtered-train+valid",
            fault_filtered_train_valid_split,
            "fault-filtered, train+valid",
        ),
        Protocol("artist-split", group_split, "artist-filtered 70/30", seeded=True),
    )
}
"""Each protocol by its name."""


def apply_protocol(tracks: pd.DataFrame, name: str, seed: int = 0) -> pd.DataFrame:
    """Split the tracks by the protocol of a name.

    Parameters
    ----------
    name
        In `PROTOCOLS`.
    seed
        Of the split, where it is drawn at random; the published ones have none.

    Returns
    -------
    pd.DataFrame
        The tracks with the column `split` or `fold`.

    Raises
    ------
    SplitError
        If there is no such protocol, or the tracks cannot be split by it.
    """
    if name not in PROTOCOLS:
        raise SplitError(f"No protocol {name!r}. Choose one of {', '.join(PROTOCOLS)}.")
    protocol = PROTOCOLS[name]
    return protocol.function(tracks, **({"seed": seed} if protocol.seeded else {}))


def protocols_for(tracks: pd.DataFrame, *, folds: bool = False) -> list[str]:
    """The usual random protocol, and the strictest one that this collection allows.

    Where artists cannot be separated, a warning says why.

    Parameters
    ----------
    folds
        Cross-validation, where the collection is large enough for it.

    Returns
    -------
    list of str
        Names in `PROTOCOLS`; the second is missing where artists cannot be separated.

    Raises
    ------
    SplitError
        If the tracks cannot even be split at random.
    """
    usual = ["random-10-fold", "random"] if folds else ["random"]
    strict = ["artist-3-fold" if folds else "fault-filtered", "artist-split"]
    first, reason = _first_possible(tracks, usual)
    if first is None:
        raise reason
    second, reason = _first_possible(tracks, strict)
    if second is None:
        warnings.warn(f"These tracks have no artist-filtered split. {reason}", MelgenreWarning, 2)
        return [first]
    return [first, second]


def strictest_protocol(tracks: pd.DataFrame) -> str:
    """The name of the strictest split that this collection allows: artist-filtered if possible."""
    return protocols_for(tracks)[-1]


def _first_possible(tracks, names):
    """The first of some protocols that the tracks can be split by; None and the last error."""
    for name in names:
        try:
            with warnings.catch_warnings(action="ignore", category=MelgenreWarning):  # only tried
                apply_protocol(tracks, name)
            return name, None
        except SplitError as error:
            reason = error
    return None, reason
