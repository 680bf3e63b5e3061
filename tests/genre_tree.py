"""A made-up collection with the genres of FMA, and as unbalanced.

`fma_genres.csv` is FMA's own table of genres, `fma_metadata/genres.csv`: 161 of them have tracks,
below 16 top genres (Defferrard et al., "FMA: A dataset for music analysis", ISMIR 2017; CC BY 4.0).
The images are patterns: genres of one top genre look alike, as their music sounds alike.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from melgenre.data.mel_settings import MelSettings, save_settings

FMA = pd.read_csv(Path(__file__).with_name("fma_genres.csv"), index_col="genre_id")
FMA = FMA[FMA["#tracks"] > 0]

TOP = dict(zip(FMA["title"], FMA["title"].loc[FMA["top_level"]], strict=True))
"""The top genre of each genre."""

PARENT = dict(zip(FMA["title"], FMA["title"].reindex(FMA["parent"]), strict=True))
"""The genre above each genre; NaN above a top genre."""

SETTINGS = MelSettings(n_mels=32, n_fft=1024, hop_length=8192)
"""Small images, whose features take milliseconds."""


def sizes(largest=120, fewest=3):
    """Tracks per genre, as unbalanced as FMA's: from `largest` down to many of `fewest`."""
    tracks = largest * FMA["#tracks"] / FMA["#tracks"].max()
    return dict(zip(FMA["title"], tracks.round().clip(lower=fewest).astype(int), strict=True))


def with_parents(genre):
    """A genre and those above it, as FMA lists the genres of a track."""
    return [genre] if pd.isna(PARENT[genre]) else [genre, *with_parents(PARENT[genre])]


def folder_name(genre):
    """The name of the folder of a genre, which can have no slash."""
    return genre.replace("/", "-")


def write_images(folder, counts):
    """Write the images `<genre>/<artist>/<song>.png` of a made-up collection.

    Every genre has at least two artists with up to four songs each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_settings(SETTINGS, folder)
    patterns, rng = _patterns(), np.random.default_rng(1)
    for genre, n in counts.items():
        for song in range(n):
            artist = (
                folder / folder_name(genre) / f"{folder_name(genre)} artist {song % max(2, n // 4)}"
            )
            artist.mkdir(parents=True, exist_ok=True)
            image = patterns[genre] + rng.normal(0, 25, patterns[genre].shape)
            pixels = image.clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(artist / f"song {song}.png")


def _patterns():
    """The mean image of each genre: that of its top genre and some of its own."""
    shape, rng = (SETTINGS.n_mels, SETTINGS.columns), np.random.default_rng(2)
    rows = np.linspace(0, 1, shape[0])[:, None]
    columns = np.linspace(0, 1, shape[1])[None]

    def waves(size):
        up, along, phase = rng.uniform(1, 8), rng.uniform(1, 12), rng.uniform(0, 6)
        return size * np.sin(2 * np.pi * (up * rows + along * columns) + phase)

    tops = {top: waves(50) for top in dict.fromkeys(TOP.values())}
    return {genre: 120 + tops[top] + waves(35) for genre, top in TOP.items()}


def made_up_confusions(tracks_per_genre=20, right=0.6):
    """Predictions of all genres without images: errors are mostly within the top genre.

    The genres are in an order in which those of a top genre are not neighbours.
    """
    rng = np.random.default_rng(3)
    genres = sorted(TOP)
    top = np.array([TOP[genre] for genre in genres])
    true = np.repeat(np.arange(len(genres)), tracks_per_genre)
    predicted = []
    for one in true:
        draw = rng.random()
        family = np.flatnonzero(top == top[one])
        choices = [one] if draw < right else family if draw < 0.95 else np.arange(len(genres))
        predicted.append(rng.choice(choices))
    table = pd.DataFrame({"genre": [genres[i] for i in true]})
    table["predicted"] = [genres[i] for i in predicted]
    table["track_id"] = [f"{genre}/{i}" for i, genre in enumerate(table["genre"])]
    scores = rng.dirichlet(np.full(len(genres), 0.05), len(true))
    scores[np.arange(len(true)), predicted] = 1  # the highest, before they are scaled
    scores /= scores.sum(axis=1, keepdims=True)
    columns = pd.DataFrame(scores, columns=[f"p_{genre}" for genre in genres])
    return pd.concat([table.assign(image=None, path=None), columns], axis=1)
