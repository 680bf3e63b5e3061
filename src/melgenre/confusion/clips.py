"""The clips that the confusion browser shows: their order, description, image and sound."""

from __future__ import annotations

import io
import os
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image

from ..data.audio import AudioError, encode_mp3
from ..data.image_files import image_exists, read_image
from ..data.mel_settings import MelSettings
from ..data.table import probabilities
from ..features.images import load_center
from ..features.melspectrogram import fix_length, melspectrogram_image

MAGMA = (matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).astype(np.uint8)
# Colours of Okabe and Ito, which colour-blind people can distinguish; browser.css uses the same.
PREDICTED_COLOUR, TRUE_COLOUR = (230, 159, 0), (86, 180, 233)


def clips_in(results: pd.DataFrame, genre: str | None, predicted: str | None) -> pd.DataFrame:
    """The clips of a cell of the matrix, of a row or column (one is None), or all (both are None).

    Wrong predictions come before correct ones, and each of the two groups starts with the highest
    confidence.

    Parameters
    ----------
    results
        As `as_predictions` returns it.
    """
    if genre is not None:
        results = results[results["genre"] == genre]
    if predicted is not None:
        results = results[results["predicted"] == predicted]
    confidence = probabilities(results).max(axis=1)
    correct = results["genre"] == results["predicted"]
    return results.iloc[np.lexsort([-confidence, correct])]


def describe_clips(
    clips: pd.DataFrame, table: str, annotations: pd.DataFrame, settings: MelSettings
) -> list[dict[str, Any]]:
    """What the front end needs of each clip except media, ready for JSON.

    Parameters
    ----------
    clips
        Rows of the results or of the training tracks.
    table
        "results" or "training": where the rows are from.
    annotations
        As `load_annotations` returns it.
    settings
        Of the images.
    """
    by_track = annotations.set_index("track_id").to_dict("index")
    of_genres = probabilities(clips).astype(float)
    described = []
    for row, clip in clips.iterrows():
        artist = clip.get("artist_id")
        described.append(
            {
                "table": table,
                "row": int(row),
                "name": str(clip["track_id"]),
                "artist": None if pd.isna(artist) else str(artist),
                "genre": clip["genre"],
                "predicted": clip.get("predicted"),
                "probabilities": list(of_genres.loc[row].nlargest(5).items()),
                "sound": sound_state(clip),
                "seconds": settings.duration,
                "annotation": by_track.get(clip["track_id"]),
            }
        )
    return described


def sound_state(clip: pd.Series) -> str:
    """Whether a clip can be played: "available", "missing" (its file) or "none" (no path)."""
    path = clip.get("path")
    if not isinstance(path, str):
        return "none"
    return "available" if os.path.exists(path) else "missing"


def image_png(clip: pd.Series, settings: MelSettings) -> bytes:
    """The mel-spectrogram of a clip in colour, as PNG; without an image file, one of its sound.

    Parameters
    ----------
    clip
        A row of a table of tracks, with `image`, `path` or both.
    settings
        For a spectrogram that is computed here.

    Returns
    -------
    bytes
        Empty if there is neither an image nor readable sound.
    """
    try:
        image = _image(clip, settings)
        return b"" if image is None else _png(image)
    except (AudioError, OSError):  # a damaged file: its clip is listed without an image
        return b""


def _image(clip: pd.Series, settings: MelSettings) -> Image.Image | None:
    file = clip.get("image")
    if isinstance(file, str) and image_exists(file):
        image = Image.open(io.BytesIO(read_image(file)))
    elif sound_state(clip) == "available":
        image = Image.fromarray(melspectrogram_image(load_center(clip["path"], settings), settings))
    else:
        return None
    if image.mode == "L":
        image.putpalette(MAGMA.tobytes())
    return image


def sound_mp3(clip: pd.Series, settings: MelSettings, seconds: float | None = None) -> bytes:
    """The sound that the image of a clip shows, as mp3.

    Parameters
    ----------
    clip
        A row of a table of tracks, with `path`.
    seconds
        Only that much of the middle; the whole image by default.

    Raises
    ------
    AudioError
        If the file cannot be read.
    """
    y = fix_length(load_center(clip["path"], settings), settings)
    if seconds is not None:
        spare = max(0, len(y) - round(seconds * settings.sample_rate)) // 2
        y = y[spare : len(y) - spare]
    return encode_mp3(y, settings.sample_rate)


def attribution_png(maps: np.ndarray) -> bytes:
    """Attribution maps as a transparent PNG that is laid over the mel-spectrogram.

    Parameters
    ----------
    maps : np.ndarray [shape=(1 or 2, n_mels, columns)]
        From `smooth_maps`: of the predicted genre, and of the true genre if that is another one.
        Each point has the colour of the larger value.
    """
    rgba = np.zeros((*maps.shape[1:], 4), dtype=np.uint8)
    colours = np.array([PREDICTED_COLOUR, TRUE_COLOUR], dtype=np.uint8)
    rgba[..., :3] = colours[maps.argmax(axis=0)]
    opacity = maps.max(axis=0) / max(np.quantile(maps, 0.995), 1e-9)
    rgba[..., 3] = (255 * opacity.clip(max=1)).astype(np.uint8)
    return _png(Image.fromarray(rgba))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
