"""Reviewed labels of clips, in a CSV file of their own: the music itself is never changed."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

from ..errors import MelgenreError, MelgenreWarning
from ..files import atomic_write, locked, sweep
from ..text import spreadsheet_plain, spreadsheet_safe
from .genres import is_multi_label, split_genres

LABELS = ("fine", "mislabelled", "corrupted", "duplicate")
"""The result of a review: the clip is kept as it is, or it has one of three faults."""

COLUMNS = ["track_id", "genre", "label", "correct_genre", "comment"]

ANNOTATIONS_FILE, EARLIER_FILE = "annotations.csv", "decisions.csv"
"""The usual name of the file, and the name that earlier versions gave it."""


class AnnotationError(MelgenreError, ValueError):
    """A file of annotations, or a label, that cannot be used; the message says why."""


def load_annotations(file: str | Path) -> pd.DataFrame:
    """Read the annotations of a file.

    Files of earlier versions are read as well: their name was `decisions.csv`, the column `label`
    was named `decision`, and the label `corrupted` was named `broken`.

    Parameters
    ----------
    file
        Where `annotations.csv` does not exist, `decisions.csv` in the same folder is read.

    Returns
    -------
    pd.DataFrame
        One row per track: `track_id`, `genre` (as the collection has it), `label` (one of
        `LABELS`), `correct_genre` (empty where unknown) and `comment`. No rows if there is no file.

    Raises
    ------
    AnnotationError
        If the file is not a table of annotations.
    """
    file = Path(file)
    if file.name == ANNOTATIONS_FILE and not file.exists():
        file = file.with_name(EARLIER_FILE)
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS, dtype=str)
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False).map(spreadsheet_plain)
    except (ValueError, OSError) as error:
        raise AnnotationError(
            f"{file.name} cannot be read as a table ({error}). Correct the file or move it away."
        ) from error
    table = table.rename(columns={"decision": "label"}).replace({"label": {"broken": "corrupted"}})
    if list(table.columns) != COLUMNS or not table["label"].isin(LABELS).all():
        raise AnnotationError(
            f"{file.name} is not a file of annotations: it needs the columns {', '.join(COLUMNS)}, "
            f"and each label must be one of {', '.join(LABELS)}. Correct the file or move it away."
        )
    return table.drop_duplicates("track_id", keep="last").reset_index(drop=True)


def save_annotation(
    file: str | Path,
    track_id: str,
    genre: str,
    label: str | None,
    *,
    correct_genre: str = "",
    comment: str = "",
) -> pd.DataFrame:
    """Write one annotation to a file; it replaces an earlier annotation of the same track.

    Parameters
    ----------
    file
        The file and its folder are created if they do not exist.
    genre
        The track's genre in the collection.
    label
        One of `LABELS`; None deletes the annotation of this track.

    Returns
    -------
    pd.DataFrame
        All annotations of the file.

    Raises
    ------
    AnnotationError
        If the label is unknown, or the file is not a table of annotations.
    """
    if label not in (None, *LABELS):
        raise AnnotationError(f"{label!r} is not a label. Use one of {', '.join(LABELS)}.")
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    sweep(file.parent)
    with locked(file):  # another notebook may write to it at the same time
        annotations = load_annotations(file)
        annotations = annotations[annotations["track_id"] != track_id]
        if label is not None:
            values = (track_id, genre, label, correct_genre, comment)
            row = pd.DataFrame([dict(zip(COLUMNS, values, strict=True))])
            annotations = pd.concat([annotations, row], ignore_index=True)
        with atomic_write(file) as part:
            annotations.map(spreadsheet_safe).to_csv(part, index=False)
    return annotations


def apply_annotations(tracks: pd.DataFrame, annotations: pd.DataFrame | str | Path) -> pd.DataFrame:
    """Correct a table of tracks by its annotations, before the tracks are split.

    A mislabelled track gets its correct genre where that is known; in a multi-label collection this
    may be several, such as `punk; rock`. Other mislabelled tracks,
    corrupted tracks and duplicates are removed. Because a result on a corrected test set is not
    comparable with results on the original one, a `MelgenreWarning` gives the number of changes.

    Parameters
    ----------
    tracks
        With `track_id` and `genre`, as `load_collection` returns it.
    annotations
        As `load_annotations` returns it, or its file.

    Returns
    -------
    pd.DataFrame
        The same columns, and a row for each track that is kept.

    Examples
    --------
    >>> tracks = pd.DataFrame({"track_id": ["a", "b"], "genre": ["rock", "jazz"]})
    >>> fine = pd.DataFrame([["a", "rock", "fine", "", ""]], columns=COLUMNS)
    >>> apply_annotations(tracks, fine)
      track_id genre
    0        a  rock
    1        b  jazz
    """
    if not isinstance(annotations, pd.DataFrame):
        annotations = load_annotations(annotations)
    by_track = annotations.set_index("track_id")
    label = tracks["track_id"].map(by_track["label"])
    correct = tracks["track_id"].map(by_track["correct_genre"]).replace("", pd.NA)
    corrected = (label == "mislabelled") & correct.notna()
    removed = label.isin(LABELS[1:]) & ~corrected
    if corrected.any() or removed.any():
        warnings.warn(
            f"Tracks removed because of their annotations: {removed.sum()}; genres corrected: "
            f"{corrected.sum()}. Results on these tracks are not comparable with results on the "
            "published splits.",
            MelgenreWarning,
            stacklevel=2,
        )
    if is_multi_label(tracks):
        correct = correct.map(split_genres, na_action="ignore")
    genre = tracks["genre"].where(~corrected, correct)
    return tracks.assign(genre=genre)[~removed].reset_index(drop=True)
