"""The confusion matrix: as a figure for papers, and as a widget whose clips can be heard.

The widget sends only the matrix at first. Images, sound, evidence and neighbours of a clip
travel when they are asked for: `browser.js` sends a message with a ticket, and the answer to it
bears the same ticket.
"""

import io
import os
from pathlib import Path

import anywidget
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import traitlets
from PIL import Image

from ..data.annotations import LABELS, load_annotations, save_annotation
from ..data.audio import AudioError, encode_mp3
from ..data.mel_settings import MelSettings
from ..evaluation.metrics import EvaluationError, confusion_matrix
from ..features.images import load_center
from ..features.melspectrogram import fix_length, melspectrogram_image
from ..files import project_folder
from ..training.learner import predict_tracks
from .page import write_page

PAGE = 8  # clips that are sent at a time
MAGMA = (matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).astype(np.uint8)
# Of Okabe and Ito's colours, which colour-blind people tell apart: browser.css has them as well.
COLOUR_OF_PREDICTED, COLOUR_OF_TRUE = (230, 159, 0), (86, 180, 233)


def as_predictions(source):
    """A table of results, from whatever has them.

    Parameters
    ----------
    source : pd.DataFrame, fastai.learner.Learner or fastai's ClassificationInterpretation
        A table needs `genre`, `predicted`, `p_<genre>`, and `path` or `image`. A learner is
        asked about its validation set, an interpretation about what it interprets.

    Returns
    -------
    pd.DataFrame

    Raises
    ------
    EvaluationError
        If columns are missing, or the learner has nothing to be asked about.
    """
    if not isinstance(source, pd.DataFrame):
        learn = getattr(source, "learn", source)
        dl = learn.dls.valid if source is learn else source.dl
        source = _predictions(learn, dl)
    missing = [column for column in ("genre", "predicted") if column not in source]
    if not any(str(column).startswith("p_") for column in source):
        missing.append("p_<genre>")
    if not {"path", "image"} & set(source):
        missing.append("path or image")
    if missing:
        raise EvaluationError(
            f"The table of results has no column {', '.join(missing)}. "
            "melgenre.training.learner.predict_tracks makes one that has them all."
        )
    results = source.reset_index(drop=True)
    if "track_id" not in results:
        file = results["path"] if "path" in results else results["image"]
        results = results.assign(track_id=[Path(str(one)).stem for one in file])
    return results


def _predictions(learn, dl):
    """What a learner says of the items of a DataLoader; ours are tables, others' lists of files."""
    if not len(getattr(dl, "items", ())):
        raise EvaluationError(
            "This learner has no clips to be asked about: one that was loaded from a file leaves "
            "them behind. Give a table of melgenre.training.learner.predict_tracks."
        )
    if isinstance(dl.items, pd.DataFrame) and {"genre", "image"} <= set(dl.items):
        return predict_tracks(learn, dl.items.reset_index(drop=True))
    with learn.no_bar(), learn.no_logging():
        probabilities, targets = learn.get_preds(dl=dl)
    vocab = list(learn.dls.vocab)
    table = pd.DataFrame(probabilities.numpy(), columns=[f"p_{genre}" for genre in vocab])
    return table.assign(
        image=[str(item) for item in dl.items],
        genre=[vocab[i] for i in targets.tolist()],
        predicted=[vocab[i] for i in probabilities.argmax(dim=1).tolist()],
    )


def plot_confusion_matrix(results, *, normalize=False, title=None, ax=None):
    """The confusion matrix as a figure for a paper, or for a page that no kernel stands behind.

    Parameters
    ----------
    results : pd.DataFrame
        With `genre` and `predicted`.
    normalize : bool
        Shares of each row in place of counts.
    title : str
        The accuracy if None.
    ax : matplotlib.axes.Axes

    Returns
    -------
    matplotlib.axes.Axes
    """
    counts = confusion_matrix(results)
    share = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    if ax is None:
        side = max(3.5, 0.55 * len(counts) + 1.5)
        _, ax = plt.subplots(figsize=(side, side), layout="constrained")
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts.to_numpy() > 0):
        value = share.iat[row, column]
        text = f"{100 * value:.0f}" if normalize else counts.iat[row, column]
        colour = "white" if value > 0.5 else "black"
        ax.text(column, row, text, ha="center", va="center", color=colour)
    # A dollar sign in a name would start a formula.
    names = [genre.replace("$", r"\$") for genre in counts.index]
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("called" + (", % of the row" if normalize else ""))
    ax.set_ylabel("is")
    right = np.trace(counts) / max(1, len(results))
    ax.set_title(title or f"{100 * right:.1f} % of {len(results)} clips are called what they are")
    return ax


class ConfusionBrowser(anywidget.AnyWidget):
    """A confusion matrix in a notebook, whose clips are seen, heard, explained and judged.

    Parameters
    ----------
    results : pd.DataFrame, Learner or ClassificationInterpretation
        As for `as_predictions`.
    learn : fastai.learner.Learner
        The network that gave the results; it shows what spoke for a genre, and which of the
        `training` clips are nearest. Known already where `results` comes from one.
    training : pd.DataFrame
        The tracks it learned from, with `genre`, `image` and possibly `path`.
    decisions : str or Path
        The CSV for what a person decides; `data/decisions.csv` of the project if None.
    settings : MelSettings
        Of the images.

    Attributes
    ----------
    selection : tuple of str or None
        The genre and what it was called; None stands for all. It follows the clicks, can be
        observed as any trait, and be set.

    Examples
    --------
    >>> browser = ConfusionBrowser(predict_tracks(learn, unseen), learn=learn)  # doctest: +SKIP
    >>> browser.selection = ("rock", "metal")                                   # doctest: +SKIP
    >>> browser.selected["track_id"]                                            # doctest: +SKIP
    """

    _esm = Path(__file__).with_name("browser.js")
    _css = Path(__file__).with_name("browser.css")
    matrix = traitlets.Dict().tag(sync=True)
    selection = traitlets.Tuple(
        traitlets.Unicode(allow_none=True),
        traitlets.Unicode(allow_none=True),
        default_value=(None, None),
    ).tag(sync=True)

    def __init__(self, results, *, learn=None, training=None, decisions=None,
                 settings=MelSettings()):  # fmt: skip
        if not isinstance(results, pd.DataFrame):
            learn = learn or getattr(results, "learn", results)
        self.results = as_predictions(results)
        self.learn, self.training, self.settings = learn, training, settings
        if training is None and learn is not None:
            items = learn.dls.train_ds.items if learn.dls.n_inp else None
            self.training = items if isinstance(items, pd.DataFrame) else None
        if self.training is not None:
            self.training = self.training.reset_index(drop=True)
        self.annotations_file = Path(decisions or project_folder() / "data" / "decisions.csv")
        load_annotations(self.annotations_file)  # a damaged file is told now, not at the first mark
        counts = confusion_matrix(self.results)
        self._known = None  # embeddings of the training clips, made when first asked for
        super().__init__(
            matrix={
                "genres": list(counts.index),
                "counts": counts.to_numpy().tolist(),
                "verdicts": list(LABELS),
                "explains": self.learn is not None,
                "compares": self.learn is not None and self.training is not None,
            }
        )
        self.on_msg(self._answer)

    def __repr__(self):  # what a page without a kernel shows in its place
        return f"ConfusionBrowser of {len(self.results)} clips: run the notebook to use it"

    @traitlets.validate("selection")
    def _check_selection(self, proposal):
        for genre in proposal["value"]:
            if genre is not None and genre not in self.matrix["genres"]:
                raise traitlets.TraitError(
                    f"No genre {genre!r} here: choose among {', '.join(self.matrix['genres'])}, or "
                    "None for all."
                )
        return proposal["value"]

    @property
    def selected(self):
        """The clips of the selection, the most confident first: a table like the results."""
        genre, predicted = self.selection
        return self.clips_of(genre, predicted)

    @property
    def decisions(self):
        """What was decided, a DataFrame; see `melgenre.data.annotations`."""
        return load_annotations(self.annotations_file)

    def to_html(self, file, *, clips_per_cell=3, seconds=10):
        """Write the browser as one page that needs neither Python nor a network.

        Parameters
        ----------
        file : str or Path
        clips_per_cell : int
            The most confident ones of each cell are taken along.
        seconds : float
            How much of each clip's middle can be heard.

        Returns
        -------
        Path
            The file; its size is printed.
        """
        return write_page(self, file, clips_per_cell=clips_per_cell, seconds=seconds)

    def clips_of(self, genre, predicted):
        """Clips of a genre that were called another; None stands for all of them."""
        clips = self.results
        if genre is not None:
            clips = clips[clips["genre"] == genre]
        if predicted is not None:
            clips = clips[clips["predicted"] == predicted]
        confidence = clips.filter(regex="^p_").max(axis=1)
        # With a whole row or column, mistakes come before what was right.
        order = pd.DataFrame({"right": clips["genre"] == clips["predicted"], "sure": -confidence})
        return clips.loc[order.sort_values(["right", "sure"], kind="stable").index]

    def _answer(self, _widget, message, _buffers):
        """Answer a message of the page, whatever happens: an error becomes its sentence."""
        try:
            answer, buffers = getattr(self, f"_send_{message['kind']}")(message)
        except Exception as error:  # the page is waiting, and a kernel shows no traceback there
            answer, buffers = {"error": str(error) or type(error).__name__}, []
        self.send({**answer, "ticket": message.get("ticket")}, buffers)

    def _send_clips(self, message):
        clips = self.clips_of(*message["selection"])
        page = clips.iloc[message["start"] :][:PAGE]
        answer = {"clips": self.describe(page, "results"), "total": len(clips)}
        return answer, [self.image_png(clip) for _, clip in page.iterrows()]

    def describe(self, clips, table):
        """What the page says of each clip: its name, genres and decision."""
        decided = self.decisions.set_index("track_id").to_dict("index")
        described = []
        for row, clip in clips.iterrows():
            probabilities = clip.filter(regex="^p_").astype(float).nlargest(5)
            artist = clip.get("artist_id")
            described.append({
                "table": table, "row": int(row), "name": str(clip["track_id"]),
                "artist": None if pd.isna(artist) else str(artist),
                "genre": clip["genre"], "predicted": clip.get("predicted"),
                "probabilities": [[name[2:], chance] for name, chance in probabilities.items()],
                "sound": _sound_of(clip), "seconds": self.settings.duration,
                "decision": decided.get(clip["track_id"]),
            })  # fmt: skip
        return described

    def _clip(self, message):
        return getattr(self, message["table"]).iloc[message["row"]]

    def image_png(self, clip):
        """The mel-spectrogram of a row of the results, in colours for people: bytes of a PNG."""
        file = clip.get("image")
        if isinstance(file, str) and os.path.exists(file):
            image = Image.open(file)
        elif _sound_of(clip) == "here":
            try:
                sound = load_center(clip["path"], self.settings)
            except AudioError:
                return b""
            image = Image.fromarray(melspectrogram_image(sound, self.settings))
        else:
            return b""
        if image.mode == "L":
            image.putpalette(MAGMA.tobytes())
        return _png(image)

    def _send_sound(self, message):
        return {}, [self.sound_mp3(self._clip(message))]

    def sound_mp3(self, clip, seconds=None):
        """What the image of a row shows, as sound: all of it, or its middle. Bytes of an mp3."""
        y = fix_length(load_center(clip["path"], self.settings), self.settings)
        if seconds is not None:
            spare = max(0, len(y) - round(seconds * self.settings.sample_rate)) // 2
            y = y[spare : len(y) - spare]
        return encode_mp3(y, self.settings.sample_rate)

    def _send_attribution(self, message):
        from .attribution import attribution_maps, smooth_maps

        clip = self._clip(message)
        genres = list(dict.fromkeys([clip["predicted"], clip["genre"]]))
        maps = attribution_maps(self.learn, clip["image"], genres)
        return {"genres": genres}, [_png(_overlay(smooth_maps(maps)))]

    def _send_neighbours(self, message):
        from .attribution import embed_images, nearest

        if self._known is None:
            self._known = embed_images(self.learn, self.training)
        clip = self._clip(message)
        asked = embed_images(self.learn, clip.to_frame().T)
        rows, similarities = zip(*nearest(asked[0], self._known), strict=True)
        clips = self.training.iloc[list(rows)]
        described = self.describe(clips, "training")
        for one, similarity in zip(described, similarities, strict=True):
            one["similarity"] = similarity
        return {"clips": described}, [self.image_png(clip) for _, clip in clips.iterrows()]

    def _send_annotation(self, message):
        clip = self._clip(message)
        save_annotation(
            self.annotations_file, clip["track_id"], clip["genre"], message["decision"],
            correct_genre=message["correct_genre"], comment=message["comment"],
        )  # fmt: skip
        return {"file": self.annotations_file.name}, []


def _sound_of(clip):
    """Whether a clip can be heard: "here", "gone" (the file), or "none" (never was any)."""
    path = clip.get("path")
    if not isinstance(path, str):
        return "none"
    return "here" if os.path.exists(path) else "gone"


def _overlay(maps):
    """Smoothed maps [shape=(1 or 2, n_mels, columns)] -> an image to lay over the spectrogram."""
    rgba = np.zeros((*maps.shape[1:], 4), dtype=np.uint8)
    strength = maps.max(axis=0) / max(np.quantile(maps, 0.995), 1e-9)
    colours = np.array([COLOUR_OF_PREDICTED, COLOUR_OF_TRUE], dtype=np.uint8)
    rgba[..., :3] = colours[maps.argmax(axis=0)]
    rgba[..., 3] = (255 * strength.clip(max=1)).astype(np.uint8)
    return Image.fromarray(rgba)


def _png(image):
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
