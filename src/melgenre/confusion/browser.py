"""The confusion matrix as a widget: each cell opens its clips.

At first the widget sends only the matrix. Images, sounds, attribution maps and neighbours are sent
when `browser.js` requests them: each of its messages has a ticket, and the answer has the same one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import pandas as pd
import traitlets

from ..data.annotations import ANNOTATIONS_FILE, LABELS, load_annotations, save_annotation
from ..data.mel_settings import ImageError, MelSettings, image_settings
from ..errors import MelgenreError
from ..files import project_folder
from ..text import listed
from .clips import attribution_png, clips_in, describe_clips, image_png, sound_mp3
from .matrix import as_predictions, ordered_matrix
from .page import front_end, write_page

if TYPE_CHECKING:
    from fastai.learner import Learner
    from fastai.vision.all import ClassificationInterpretation

CLIPS_PER_ANSWER = 8
LONGEST_COMMENT = 500  # characters; browser.js has the same limit


class MessageError(MelgenreError, ValueError):
    """A message of the widget's front end that cannot be answered."""


class ConfusionBrowser(anywidget.AnyWidget):
    """A confusion matrix in a notebook, with image, sound, attribution and annotation of each clip.

    Parameters
    ----------
    results
        As for `as_predictions`.
    learn
        The learner that made the predictions: with it the widget shows attribution maps and the
        nearest training clips. Not needed where `results` is a learner or an interpretation.
    training
        The tracks that the learner was trained on, with `genre`, `image` and possibly `path`. By
        default the training set of the learner, if it has one.
    annotations
        The CSV file of annotations; `data/annotations.csv` of the project by default.
    clustered
        Genres that are confused with each other are neighbours in the matrix, as for
        `ordered_matrix`; by default where there are more than 20. Of so many, a part of the matrix
        is shown, and an overview moves and zooms it.

    Attributes
    ----------
    selection : tuple of (str or None)
        True and predicted genre of the selected clips; None stands for all genres. It follows the
        clicks, and it can be set and observed like any trait.

    Raises
    ------
    EvaluationError, AnnotationError, ImageError
        If the predictions, the annotations or the settings of the images cannot be used.

    Examples
    --------
    >>> table = pd.DataFrame({"genre": ["rock"], "predicted": ["metal"], "path": ["a.mp3"]})
    >>> browser = ConfusionBrowser(table.assign(p_metal=0.9, p_rock=0.1))
    >>> browser.selection = ("rock", "metal")
    >>> browser.selected["track_id"].tolist()
    ['a']
    """

    _esm = front_end()
    _css = Path(__file__).with_name("browser.css")
    matrix = traitlets.Dict().tag(sync=True)
    selection = traitlets.Tuple(
        traitlets.Unicode(allow_none=True),
        traitlets.Unicode(allow_none=True),
        default_value=(None, None),
    ).tag(sync=True)

    def __init__(
        self,
        results: pd.DataFrame | Learner | ClassificationInterpretation,
        *,
        learn: Learner | None = None,
        training: pd.DataFrame | None = None,
        annotations: str | Path | None = None,
        clustered: bool | None = None,
    ) -> None:
        if not isinstance(results, pd.DataFrame):
            learn = learn or getattr(results, "learn", results)
        if training is None and learn is not None:
            training = _training_tracks(learn)
        self.results, self.learn = as_predictions(results), learn
        self.training = None if training is None else training.reset_index(drop=True)
        self.settings = _settings(self.results)
        self.annotations_file = Path(annotations or project_folder() / "data" / ANNOTATIONS_FILE)
        load_annotations(self.annotations_file)  # an invalid file raises here, not when saving
        self._training_embeddings = None  # computed when they are first needed
        counts = ordered_matrix(self.results, clustered)
        self._genres = list(counts.index)
        super().__init__(
            matrix={
                "genres": self._genres,
                "counts": counts.to_numpy().tolist(),
                "labels": list(LABELS),
                "attribution": self.learn is not None,
                "neighbours": self.learn is not None and self.training is not None,
            }
        )
        self.on_msg(self._answer)

    def __repr__(self) -> str:  # a static page shows this in place of the widget
        return f"ConfusionBrowser of {len(self.results)} clips: run the notebook to use it"

    @traitlets.validate("selection")
    def _check_selection(self, proposal: dict) -> tuple[str | None, str | None]:
        for genre in proposal["value"]:
            if genre not in [None, *self._genres]:
                raise traitlets.TraitError(
                    f"The matrix has no genre {genre!r}. Choose one of {listed(self._genres)}, "
                    "or None for all genres."
                )
        return proposal["value"]

    @property
    def selected(self) -> pd.DataFrame:
        """The selected rows of the results: wrong predictions first, then by confidence."""
        return clips_in(self.results, *self.selection)

    @property
    def annotations(self) -> pd.DataFrame:
        """All annotations of the file, as `melgenre.load_annotations` returns them."""
        return load_annotations(self.annotations_file)

    def to_html(
        self,
        file: str | Path,
        *,
        clips_per_cell: int = 3,
        seconds: float = 10,
        media: str | Path | None = None,
    ) -> Path:
        """Write a standalone page of the matrix, which needs neither Python nor the internet.

        Parameters
        ----------
        clips_per_cell
            The page has that many clips of each cell, the most confident ones.
        seconds
            The page has that much sound of each clip, from its middle.
        media
            A folder for the images and sounds, so that the page itself is small and loads those of
            a clip when they are needed: for a web site. By default all are inside the page.

        Returns
        -------
        Path
            The file that was written.
        """
        return write_page(self, file, clips_per_cell=clips_per_cell, seconds=seconds, media=media)

    def _answer(self, _widget: ConfusionBrowser, message: Any, _buffers: list) -> None:
        """Answer a message of the front end; an exception is sent back as `error`."""
        ticket = message.get("ticket") if isinstance(message, dict) else None
        try:
            answer, buffers = self._handle(message)
        except MelgenreError as error:
            answer, buffers = {"error": str(error)}, []
        except Exception as error:  # networks raise any class, and the front end is waiting
            answer, buffers = {"error": f"{type(error).__name__}: {error}"}, []
        self.send({**answer, "ticket": ticket}, buffers)

    def _handle(self, message: Any) -> tuple[dict, list[bytes]]:
        """Call the handler of a message.

        A web page is not trusted: names in a message are looked up in fixed dictionaries, and
        values are checked here, not against `matrix`, which the page can change.
        """
        handlers = {
            "clips": self._send_clips,
            "sound": self._send_sound,
            "attribution": self._send_attribution,
            "neighbours": self._send_neighbours,
            "annotation": self._save_annotation,
        }
        _require(isinstance(message, dict), "message")
        kind = message.get("kind")
        _require(isinstance(kind, str) and kind in handlers, "kind of message")
        return handlers[kind](message)

    def _clip(self, message: dict) -> pd.Series:
        """The row of the results or of the training tracks that a message refers to."""
        tables = {"results": self.results, "training": self.training}
        name, row = message.get("table"), message.get("row")
        _require(isinstance(name, str) and tables.get(name) is not None, "table")
        _require(type(row) is int and 0 <= row < len(tables[name]), "row")
        return tables[name].iloc[row]

    def _clip_with_image(self, message: dict) -> pd.Series:
        _require(message.get("table") == "results", "table")
        clip = self._clip(message)
        if not isinstance(clip.get("image"), str):
            raise ImageError(
                f"{clip['track_id']} has no image file. melgenre.extract_melspectrograms writes "
                "images of tracks."
            )
        return clip

    def _send_clips(self, message: dict) -> tuple[dict, list[bytes]]:
        selection, start = message.get("selection"), message.get("start")
        _require(isinstance(selection, list) and len(selection) == 2, "selection")
        _require(all(genre in [None, *self._genres] for genre in selection), "selection")
        clips = clips_in(self.results, *selection)
        _require(type(start) is int and 0 <= start <= len(clips), "start")
        described, images = self._show(clips.iloc[start:][:CLIPS_PER_ANSWER], "results")
        return {"clips": described, "total": len(clips)}, images

    def _show(self, clips: pd.DataFrame, table: str) -> tuple[list[dict], list[bytes]]:
        images = [image_png(clip, self.settings) for _, clip in clips.iterrows()]
        return describe_clips(clips, table, self.annotations, self.settings), images

    def _send_sound(self, message: dict) -> tuple[dict, list[bytes]]:
        return {}, [sound_mp3(self._clip(message), self.settings)]

    def _send_attribution(self, message: dict) -> tuple[dict, list[bytes]]:
        from .attribution import attribution_maps, smooth_maps  # needs torch

        _require(self.learn is not None, "kind of message")
        clip = self._clip_with_image(message)
        genres = list(dict.fromkeys([clip["predicted"], clip["genre"]]))
        maps = attribution_maps(self.learn, clip["image"], genres)
        return {"genres": genres}, [attribution_png(smooth_maps(maps))]

    def _send_neighbours(self, message: dict) -> tuple[dict, list[bytes]]:
        from .attribution import embed_images, nearest  # needs torch

        _require(self.learn is not None and self.training is not None, "kind of message")
        clip = self._clip_with_image(message)
        if self._training_embeddings is None:
            self._training_embeddings = embed_images(self.learn, self.training)
        query = embed_images(self.learn, clip.to_frame().T)[0]
        rows, similarities = zip(*nearest(query, self._training_embeddings), strict=True)
        described, images = self._show(self.training.iloc[list(rows)], "training")
        for neighbour, similarity in zip(described, similarities, strict=True):
            neighbour["similarity"] = similarity
        return {"clips": described}, images

    def _save_annotation(self, message: dict) -> tuple[dict, list[bytes]]:
        clip = self._clip(message)
        label, genre = message.get("label"), message.get("correct_genre")
        comment = message.get("comment")
        _require(label in [None, *LABELS], "label")
        _require(genre in ["", *self._genres], "genre")
        _require(isinstance(comment, str) and len(comment) <= LONGEST_COMMENT, "comment")
        file, track_id = self.annotations_file, clip["track_id"]
        save_annotation(file, track_id, clip["genre"], label, correct_genre=genre, comment=comment)
        return {"file": file.name}, []


def _require(valid: bool, what: str) -> None:
    if not valid:
        raise MessageError(
            f"The widget sent an unknown {what}. Run the cell that shows the widget again."
        )


def _training_tracks(learn: Learner) -> pd.DataFrame | None:
    """The training set of a learner if it is a table; a loaded learner has none."""
    items = learn.dls.train_ds.items if learn.dls.n_inp else None
    return items if isinstance(items, pd.DataFrame) else None


def _settings(results: pd.DataFrame) -> MelSettings:
    """The settings of the images: all images of one network have the same."""
    images = results["image"].dropna() if "image" in results else []
    return image_settings(images.iloc[0]) if len(images) else MelSettings()
