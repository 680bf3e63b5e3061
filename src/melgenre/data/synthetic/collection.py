"""A small synthetic collection in GTZAN's layout, for use without data.

An accuracy on this music means nothing for real music, and every result must say so.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile

from ...files import atomic_write, sweep
from ...parallel import parallel_map
from ..audio import SAMPLE_RATE
from .composers import COMPOSERS, GENRE_SPECS
from .score import MODES, Artist, Score

GENRES = tuple(sorted(GENRE_SPECS))
CLIPS_PER_ARTIST = 2


def render_clip(
    genre: str,
    number: int,
    *,
    duration: float = 30.0,
    sample_rate: int = SAMPLE_RATE,
    seed: int = 0,
) -> np.ndarray:
    """Compose and render one clip of synthetic music.

    Clips `2 * k` and `2 * k + 1` of a genre are by the same invented artist.

    Parameters
    ----------
    genre
        One of `GENRES`.
    number
        Which clip of the genre, from 0.
    duration
        Length in seconds, at least 1.
    sample_rate
        In Hz.
    seed
        A different seed gives a different collection.

    Returns
    -------
    np.ndarray [shape=(round(duration * sample_rate),), dtype=float32]
        Mono samples, at most 0.9 in magnitude; the same arguments give the same samples.

    Raises
    ------
    ValueError
        If `genre` is not one of `GENRES`, or `duration` is too short for a note.
    """
    if genre not in GENRES:
        raise ValueError(
            f"Genre {genre!r} cannot be rendered because it is not one of the synthetic genres; "
            f"choose one of {', '.join(GENRES)}."
        )
    if duration < 1:
        raise ValueError(
            f"A clip of {duration} s cannot be rendered because it may be shorter than a pause; "
            "choose 1 s or more."
        )
    index, spec = GENRES.index(genre), GENRE_SPECS[genre]
    # The trailing 1 gives the artist another random stream than the clip of the same number.
    habits = np.random.default_rng((seed, index, number // CLIPS_PER_ARTIST, 1))
    artist = Artist(*habits.uniform(size=3).tolist(), *habits.integers((12, 12, 8)).tolist())

    rng = np.random.default_rng((seed, index, number))
    tempo = np.clip(artist.tempo + rng.normal(0, 0.08), 0, 1)
    modes = spec.modes.split()
    compose, parts = COMPOSERS[genre]
    score = Score(
        rng=rng,
        spec=spec,
        artist=artist,
        parts=parts,
        rate=sample_rate,
        samples=round(duration * sample_rate),
        beat=60 / (spec.min_bpm + tempo * (spec.max_bpm - spec.min_bpm)),
        key=45 + artist.register + int(rng.integers(5)),
        mode=MODES[modes[(artist.mode + (rng.random() < 0.25)) % len(modes)]],
        brightness=float(np.clip(artist.brightness + rng.normal(0, 0.06), 0, 1)),
    )
    for bar in score.bars():
        compose(score, bar.level)
    wave = score.mix()
    fade = np.minimum(1, np.arange(wave.size) / (0.01 * sample_rate))
    wave = wave * fade * fade[::-1]
    return (rng.uniform(0.6, 0.9) / np.abs(wave).max() * wave).astype(np.float32)


def make_synthetic_collection(
    folder: str | Path,
    *,
    clips_per_genre: int = 16,
    duration: float = 30.0,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write the synthetic collection in GTZAN's layout, on all cores.

    Existing files are kept, whatever their duration or seed, so an interrupted call resumes.

    Parameters
    ----------
    folder
        Where to write; made if missing.
    clips_per_genre
        Number of clips of each of the ten genres.
    duration
        Length of a clip in seconds.
    seed
        A different seed gives a different collection.
    progress
        Show a progress bar.

    Returns
    -------
    Path
        `folder`, absolute, which then holds `genres/<genre>/<genre>.NNNNN.wav` (22050 Hz, mono,
        16 bit), `tracks.csv` (track_id, genre, artist_id) and `SYNTHETIC.md`.
    """
    folder = Path(folder).resolve()
    clips = [(genre, number) for genre in GENRES for number in range(clips_per_genre)]
    paths = {
        (genre, number): folder / "genres" / genre / f"{genre}.{number:05d}.wav"
        for genre, number in clips
    }
    missing = [(path, *clip, duration, seed) for clip, path in paths.items() if not path.exists()]
    for genre in GENRES:
        (folder / "genres" / genre).mkdir(parents=True, exist_ok=True)
        sweep(folder / "genres" / genre)
    made = parallel_map(
        _write_clip,
        missing,
        total=len(missing),
        desc="synthetic clips",
        unit=" clips",
        progress=progress,
    )
    for _ in made:
        pass

    with atomic_write(folder / "tracks.csv") as part, part.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("track_id", "genre", "artist_id"))
        for genre, number in clips:
            artist_id = f"{genre}-artist-{number // CLIPS_PER_ARTIST}"
            table.writerow((f"{genre}.{number:05d}", genre, artist_id))
    with atomic_write(folder / "SYNTHETIC.md") as part:
        part.write_text(
            "Made-up music, composed and rendered by melgenre.data.synthetic. "
            "An accuracy on it means nothing for real music.\n"
        )
    return folder


def _write_clip(path: Path, genre: str, number: int, duration: float, seed: int) -> None:
    wave = render_clip(genre, number, duration=duration, seed=seed)
    with atomic_write(path) as part:
        soundfile.write(part, wave, SAMPLE_RATE, subtype="PCM_16", format="WAV")
