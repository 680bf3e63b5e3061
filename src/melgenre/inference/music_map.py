"""A map of a collection: songs with similar embeddings are close together, and can be played."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from sklearn.manifold import TSNE

from ..data.audio import AudioError, audio_duration, encode_mp3, load_audio
from ..files import atomic_write
from .embeddings import EmbeddingError, Embeddings, unit_length

FEWEST_SONGS = 4
"""That t-SNE needs."""

PERPLEXITY = 30
"""About the number of neighbours of a song that t-SNE keeps close to it; fewer for few songs."""

SOUND_RATE = 16_000
"""Of the sounds in a map, in Hz: 5 kB per second, so that a notebook stays small."""


def map_positions(vectors: np.ndarray) -> np.ndarray:
    """Place embeddings in the plane by t-SNE, so that neighbours stay neighbours.

    Distances between far groups and the directions of the axes mean nothing. van der Maaten and
    Hinton, "Visualizing data using t-SNE" (2008). Fewer than four songs are placed by their
    principal components.

    Parameters
    ----------
    vectors : np.ndarray [shape=(n, d)]
        Compared by cosine.

    Returns
    -------
    np.ndarray [shape=(n, 2)]
        Between 0 and 1.
    """
    n = len(vectors)
    if n < FEWEST_SONGS:
        centred = unit_length(vectors) - unit_length(vectors).mean(axis=0)
        positions = centred @ np.linalg.svd(centred)[2][:2].T
    else:
        perplexity = min(PERPLEXITY, (n - 1) / 3)
        tsne = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0)
        positions = tsne.fit_transform(vectors)
    lowest, highest = positions.min(axis=0), positions.max(axis=0)
    return (positions - lowest) / np.maximum(highest - lowest, 1e-9)


def plot_map(embeddings: Embeddings, genres: Sequence[str]) -> Axes:
    """Plot a map of songs, coloured by genre: see `map_positions`.

    Parameters
    ----------
    genres
        One per song, true or predicted.

    Raises
    ------
    EmbeddingError
        If there is no song, or another number of genres than of songs.
    """
    genres = _checked(embeddings, genres)
    positions = map_positions(embeddings.vectors)
    _, ax = plt.subplots(figsize=(7, 4.5))
    for genre, colour in _colours(genres).items():
        ax.scatter(*positions[genres == genre].T, color=colour, label=genre, s=25)
    ax.set(xticks=[], yticks=[])
    ax.legend(bbox_to_anchor=(1, 1), loc="upper left")
    return ax


@dataclass(repr=False)
class MusicMap:
    """A map of songs as a web page, which a notebook shows.

    Attributes
    ----------
    page
        HTML that needs no other file and no internet.
    """

    page: str

    def __repr__(self):
        return "MusicMap: run the notebook to use it"  # what a static page shows in its place

    def _repr_html_(self):
        # A frame of its own: its styles and keys do not mix with those of the notebook.
        return (
            f'<iframe srcdoc="{html.escape(self.page)}" title="Map of songs" '
            'style="width: 100%; height: 34rem; border: 0"></iframe>'
        )

    def save(self, file: str | Path) -> Path:
        """Write the page to a file, and return it."""
        with atomic_write(file) as part:
            part.write_text(self.page, encoding="utf-8")
        return Path(file)


def play_map(
    embeddings: Embeddings,
    genres: Sequence[str],
    folder: str | Path = ".",
    *,
    sounds: int = 40,
    seconds: float = 3.0,
) -> MusicMap:
    """A map of songs in which a click on a song plays it.

    Parameters
    ----------
    genres
        As for `plot_map`.
    folder
        Of `embed_folder`; not needed for a list of files.
    sounds
        So many songs can be played, some of each part of the list: each takes 20 kB in the page.
        The others are pale.
    seconds
        How much of each song, from its middle.

    Raises
    ------
    EmbeddingError
        As for `plot_map`.
    """
    genres = _checked(embeddings, genres)
    positions = map_positions(embeddings.vectors).round(4).tolist()
    count = len(embeddings.songs)
    chosen = set(np.linspace(0, count - 1, min(sounds, count)).round().astype(int).tolist())
    songs = [
        {
            "name": Path(name).name,
            "genre": genre,
            "x": x,
            "y": y,
            "mp3": _sound(Path(folder, name), seconds) if number in chosen else "",
        }
        for number, (name, genre, (x, y)) in enumerate(
            zip(embeddings.songs, genres.tolist(), positions, strict=True)
        )
    ]
    data = json.dumps({"songs": songs, "colours": _colours(genres)})
    page = Path(__file__).with_name("music_map.html").read_text("utf-8")
    # A name may contain anything, also the end tag of a script.
    return MusicMap(page.replace("/*DATA*/", data.replace("<", "\\u003c"), 1))


def _sound(file, seconds):
    """The middle of a recording as mp3 in base64; empty if it cannot be read."""
    try:
        start = max(0, (audio_duration(file) - seconds) / 2)
        y = load_audio(file, sample_rate=SOUND_RATE, offset=start, duration=seconds)
    except AudioError:
        return ""
    return base64.b64encode(encode_mp3(y, SOUND_RATE)).decode()


def _checked(embeddings, genres):
    """The genres as an array of text [shape=(n,)]."""
    genres = np.asarray(genres, dtype=str)
    if not len(genres):
        raise EmbeddingError("There is no song to map: embed a folder that has readable songs.")
    if genres.shape != (len(embeddings.songs),):
        raise EmbeddingError(
            f"There are {len(embeddings.songs)} songs and {genres.size} genres. Give one genre per "
            "song, in the order of `embeddings.songs`."
        )
    return genres


def _colours(genres):
    """A colour for each genre, as `#rrggbb`."""
    names = sorted(set(genres.tolist()))
    few = matplotlib.colormaps["tab10" if len(names) <= 10 else "tab20"].colors
    many = matplotlib.colormaps["hsv"](np.linspace(0, 1, len(names), endpoint=False))
    colours = few if len(names) <= len(few) else many
    return {name: to_hex(colour) for name, colour in zip(names, colours, strict=False)}
