"""A made-up collection with as many genres as FMA, in a tree like FMA's, and as unbalanced.

161 genres below 16 top genres (Defferrard et al., "FMA: A dataset for music analysis", ISMIR 2017).
The images are patterns: genres of one top genre look alike, as their music sounds alike.
"""

import numpy as np
import pandas as pd
from PIL import Image

from melgenre.data.mel_settings import MelSettings, save_settings

TREE = {
    "Blues": "Gospel",
    "Classical": "20th Century, Chamber Music, Choral, Composed Music, Opera, Symphony",
    "Country": "Americana, Bluegrass, Country & Western, Rockabilly, Western Swing",
    "Easy Listening": "Bebop Lounge, Lounge, Nostalgia, Pop Standards",
    "Electronic": "Ambient Electronic, Bigbeat, Breakbeat, Breakcore, Chill-out, Chip Music, "
    "Chiptune, Dance, Downtempo, Drum & Bass, Dubstep, Glitch, House, IDM, "
    "Jungle, Minimal Electronic, Skweee, Techno, Trip-Hop",
    "Experimental": "Audio Collage, Avant-Garde, Ballads, Christmas, Drone, Easter, "
    "Electroacoustic, Field Recordings, Holiday, Improv, Lo-Fi, Musique Concrete, Noise, Novelty, "
    "Sound Art, Sound Collage, Sound Poetry, Unclassifiable",
    "Folk": "British Folk, Free-Folk, Freak-Folk, Psych-Folk, Singer-Songwriter",
    "Hip-Hop": "Abstract Hip-Hop, Alternative Hip-Hop, Breaks, Hip-Hop Beats, Instrumental Rap, "
    "Nerdcore, Rap, Turntablism, Wonky",
    "Instrumental": "Ambient, New Age, Soundtrack",
    "International": "Afrobeat, African, Asia-Far East, Balkan, Bollywood, Brazilian, Cumbia, "
    "Europe, Fado, Flamenco, France, French Pop, Indian, Klezmer, Latin, Latin America, "
    "Middle East, North African, Polka, Reggae Dub, Reggae Dancehall, Romany, "
    "Spanish, Tango, Turkish",
    "Jazz": "Be-Bop, Big Band, Free-Jazz, Jazz Out, Jazz Vocal, Modern Jazz, Swing",
    "Old-Time": "Historic Gospel, Ragtime, Shellac",
    "Pop": "Experimental Pop, Instrumental Pop, Power-Pop, Synth Pop, Vocal Pop",
    "Rock": "Black-Metal, Death-Metal, Garage, Goth, Grindcore, Hardcore, Indie-Rock, Industrial, "
    "Krautrock, Loud-Rock, Metal, New Wave, No Wave, Noise-Rock, Post-Punk, Post-Rock, "
    "Progressive, Psych-Rock, Punk, Rock Opera, Shoegaze, Sludge, Space-Rock, Surf, Thrash",
    "Soul-RnB": "Disco, Funk",
    "Spoken": "Banter, Comedy, Interview, Poetry, Radio, Radio Theater, Spoken Weird, Talk Radio",
}
"""The genres below each top genre."""

TOP = {
    genre: top
    for top, children in TREE.items()
    for genre in [top, *filter(None, children.split(", "))]
}
"""The top genre of each genre, in the order of the tree."""

SETTINGS = MelSettings(n_mels=32, n_fft=1024, hop_length=8192)
"""Small images, whose features take milliseconds."""


def sizes(largest=120, fewest=3):
    """Tracks per genre by a power law, from the largest down to some of `fewest`."""
    rng = np.random.default_rng(0)
    ranks = rng.permutation(len(TOP)) + 1
    return {g: max(fewest, round(largest / rank)) for g, rank in zip(TOP, ranks, strict=True)}


def write_images(folder, counts):
    """Write the images `<genre>/<artist>/<song>.png` of a made-up collection.

    Every genre has at least two artists with up to four songs each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_settings(SETTINGS, folder)
    patterns, rng = _patterns(), np.random.default_rng(1)
    for genre, n in counts.items():
        for song in range(n):
            artist = folder / genre / f"{genre} artist {song % max(2, n // 4)}"
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

    tops = {top: waves(50) for top in TREE}
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
