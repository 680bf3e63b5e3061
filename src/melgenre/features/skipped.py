"""One warning for all tracks that could not be used."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ..errors import MelgenreWarning

if TYPE_CHECKING:
    import pandas as pd

MAX_NAMED = 10
"""Tracks that the warning names; `attrs["skipped"]` has all of them."""


def report_skipped(tracks: pd.DataFrame, skipped: list[tuple[str, str]], total: int) -> None:
    """Keep the skipped tracks in `tracks.attrs["skipped"]`, and warn of them in one sentence.

    Parameters
    ----------
    tracks
        Those that were not skipped.
    skipped
        Name and reason of each skipped track.
    total
        Number of all tracks.
    """
    tracks.attrs["skipped"] = skipped
    if skipped:
        named = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in skipped[:MAX_NAMED])
        more = "" if len(skipped) <= MAX_NAMED else f"; and {len(skipped) - MAX_NAMED} others"
        warnings.warn(
            f"{len(skipped)} of {total} tracks skipped: {named}{more}.",
            MelgenreWarning,
            stacklevel=3,
        )
