"""What a person has decided about clips, in a CSV of its own: the raw data is never changed."""

from pathlib import Path

import pandas as pd

from ..errors import MelgenreError
from ..files import atomic_write, locked, sweep
from ..text import spreadsheet_plain, spreadsheet_safe

LABELS = ("fine", "mislabelled", "corrupted", "duplicate")
"""What a clip can be called: kept as it is, or one of three faults."""

COLUMNS = ["track_id", "genre", "decision", "correct_genre", "comment"]


class AnnotationError(MelgenreError, ValueError):
    """A file of decisions, or a decision, that cannot be used; the message says why."""


def load_annotations(file):
    """The decisions kept in a file.

    Parameters
    ----------
    file : str or Path

    Returns
    -------
    pd.DataFrame
        `track_id`, `genre` (as labelled), `decision` (one of `LABELS`), `correct_genre` (empty
        where not known), `comment`; a row a track, none if there is no file yet.

    Raises
    ------
    AnnotationError
        If the file is no table of decisions.
    """
    file = Path(file)
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS, dtype=str)
    try:
        decisions = pd.read_csv(file, dtype=str, keep_default_na=False).map(spreadsheet_plain)
        decisions = decisions.replace({"decision": {"broken": "corrupted"}})  # its earlier name
    except (ValueError, OSError) as error:
        raise AnnotationError(
            f"{file.name} cannot be read as a table ({error}). Correct it, or move it away."
        ) from error
    if list(decisions.columns) != COLUMNS or not decisions["decision"].isin(LABELS).all():
        raise AnnotationError(
            f"{file.name} is no file of decisions: it needs the columns {', '.join(COLUMNS)}, with "
            f"{', '.join(LABELS)} as decision. Mend it, or move it away."
        )
    return decisions.drop_duplicates("track_id", keep="last").reset_index(drop=True)


def save_annotation(file, track_id, genre, decision, *, correct_genre="", comment=""):
    """Write one decision into a file, in place of an earlier one about the same track.

    Parameters
    ----------
    file : str or Path
        Made, with its folder, where it is missing.
    track_id, genre : str
        The track, and its genre as labelled.
    decision : str or None
        One of `LABELS`; None takes an earlier decision back.
    correct_genre, comment : str

    Returns
    -------
    pd.DataFrame
        All decisions of the file.

    Raises
    ------
    AnnotationError
        If the decision is none of `LABELS`, or the file is no table of decisions.
    """
    if decision not in (None, *LABELS):
        raise AnnotationError(f"{decision!r} is no decision. Say one of {', '.join(LABELS)}.")
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    sweep(file.parent)
    with locked(file):  # another notebook may write to it at the same time
        decisions = load_annotations(file)
        decisions = decisions[decisions["track_id"] != track_id]
        if decision:
            values = (track_id, genre, decision, correct_genre, comment)
            row = pd.DataFrame([dict(zip(COLUMNS, values, strict=True))])
            decisions = pd.concat([decisions, row], ignore_index=True)
        with atomic_write(file) as part:
            decisions.map(spreadsheet_safe).to_csv(part, index=False)
    return decisions


def apply_annotations(tracks, decisions):
    """The table of tracks as a person has decided: faults left out, wrong genres corrected.

    A mislabelled track whose right genre is known gets it; other mislabelled ones, broken ones
    and duplicates are left out. It says what it did: a figure from a `test` that was mended after
    looking at its mistakes is no longer the published protocol's.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `track_id` and `genre`, of `load_collection`; split it afterwards.
    decisions : pd.DataFrame, str or Path
        Of `load_annotations`, or the file.

    Returns
    -------
    pd.DataFrame
        Fewer rows, the same columns.
    """
    if not isinstance(decisions, pd.DataFrame):
        decisions = load_annotations(decisions)
    by_track = decisions.set_index("track_id")
    verdict = tracks["track_id"].map(by_track["decision"])
    correct = tracks["track_id"].map(by_track["correct_genre"]).replace("", pd.NA)
    corrected = (verdict == "mislabelled") & correct.notna()
    left_out = verdict.isin(LABELS[1:]) & ~corrected
    genre = tracks["genre"].where(~corrected, correct)
    if corrected.any() or left_out.any():
        print(
            f"By decisions: {left_out.sum()} tracks left out, {corrected.sum()} given another "
            "genre. Figures from here on are not comparable with the published protocols."
        )
    return tracks.assign(genre=genre)[~left_out].reset_index(drop=True)
