"""The score of a clip: places notes on a beat grid and mixes the parts.

Rhythms are strings that span a bar (`X` accent, `x` note, `o` soft note, `-` held, `.` silence) and
whose length sets the grid: 16 for sixteenths of 4/4, 12 for swung triplets. Progressions are
strings of scale degrees ("1645"). A list of degrees is played in turn, a tuple in it as a chord.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import signal

from .instruments import INSTRUMENTS, clock, filtered, noise

MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
}
# How many parts play in each section of a clip: 1 is the core of the genre, 3 is all parts.
FORMS = ((2, 3, 1, 3), (1, 2, 3, 2), (3, 1, 2, 3), (2, 1, 3, 2), (1, 3, 2, 3))
TRIAD, SEVENTH = (0, 2, 4), (0, 2, 4, 6)

T = TypeVar("T")
Degrees = Sequence[int | tuple[int, ...]]  # single notes and chords


class GenreSpec(NamedTuple):
    """What all clips of a genre have in common."""

    min_bpm: float  # slowest and fastest tempo, in beats per minute
    max_bpm: float
    beats: int  # in a bar
    timing_jitter: float  # standard deviation of the onsets, in seconds
    reverb: float
    modes: str
    progressions: str


@dataclass(frozen=True)
class Artist:
    """Fixed habits that an artist's clips share and other artists' clips do not."""

    tempo: float  # between the genre's slowest and fastest tempo, 0 .. 1
    brightness: float  # of the instruments, 0 .. 1
    reverb: float  # 0 .. 1
    groove: int  # which of a genre's rhythms they favour
    mode: int  # which of a genre's scales they favour
    register: int  # semitones that their keys lie above the lowest


class Bar(NamedTuple):
    start: float  # seconds
    section: int
    place: int  # in its section
    last: bool  # of its section
    level: int  # 1 bare .. 3 full
    root: int  # degree of its chord, 0 is the tonic
    step: int  # degrees from its chord to the next one


def onsets(rhythm: str) -> list[tuple[int, int, float]]:
    """List a rhythm's notes as (step, steps held, velocity)."""
    loudness = {"X": 1.25, "x": 1.0, "o": 0.45}
    found = re.finditer(r"[Xxo]-*", rhythm)
    return [(note.start(), len(note[0]), loudness[note[0][0]]) for note in found]


@dataclass
class Score:
    """A clip being composed."""

    rng: np.random.Generator
    spec: GenreSpec
    artist: Artist
    parts: dict[str, list[str]]  # part -> (instrument, level in dB, perhaps "echo" or "duck")
    rate: int
    samples: int
    beat: float  # seconds
    key: int  # MIDI note of the tonic
    mode: tuple[int, ...]
    brightness: float
    bar: Bar | None = None  # the one being written
    sounds: dict = field(default_factory=dict)  # part -> what it has played
    notes: dict = field(default_factory=dict)  # each distinct note is rendered once
    tunes: dict = field(default_factory=dict)

    def bars(self) -> Iterator[Bar]:
        """Lay out sections of about eight seconds, verse and chorus in turn, and go bar by bar."""
        seconds = self.beat * self.spec.beats
        length = max(2, 2 * round(4 / seconds))
        songs = self.rng.permutation(self.spec.progressions.split())
        form = FORMS[self.rng.integers(len(FORMS))]
        pickup = self.rng.uniform(0, seconds)  # a clip is cut from its song anywhere in a bar
        count = int((self.samples / self.rate + pickup) / seconds) + 1
        places = [divmod(number, length) for number in range(count + 1)]
        chords = [int(songs[part % 2][k % len(songs[part % 2])]) for part, k in places]
        roots = [(chord + 2) % 7 - 3 for chord in chords]  # around the tonic, not all above it
        for n, (section, place) in enumerate(places[:-1]):
            level, step = form[section % len(form)], roots[n + 1] - roots[n]
            start, last = n * seconds - pickup, place == length - 1
            self.bar = Bar(start, section, place, last, level, roots[n], step)
            yield self.bar

    def pick(self, *options: T) -> T:
        """Choose the option that this artist favours."""
        return options[self.artist.groove % len(options)]

    def pitches(self, degrees: int | tuple[int, ...], octave: int) -> list[int]:
        """MIDI notes of one degree or of a chord, whose voices stay within one octave."""
        chord = degrees if isinstance(degrees, tuple) else (degrees,)
        places = [divmod(self.bar.root + degree, 7) for degree in chord]
        notes = [self.key + 12 * (octave + higher) + self.mode[place] for higher, place in places]
        low = self.key + 12 * octave - 3
        return notes if len(notes) == 1 else [low + (note - low) % 12 for note in notes]

    def play(self, part: str, rhythm: str, degrees: Degrees, octave: int = 0) -> None:
        """Write a part's bar in degrees above the bar's chord, taken in turn."""
        notes = [self.pitches(degree, octave) for degree in degrees]
        self.write(part, self.parts[part][0], rhythm, notes)

    def play_melody(self, part: str, octave: int, rhythms: str) -> None:
        """Play the bar's share of a tune in these rhythms, moved onto the bar's chord."""
        tune = (rhythms, self.bar.section % 2)
        if tune not in self.tunes:
            self.tunes[tune] = self.tune(rhythms.split())
        self.play(part, *self.tunes[tune][self.bar.place % 4], octave)

    def drums(self, fill: str = "", **rhythms: str) -> None:
        """Write a bar of drums; with `fill`, the last bar of a section ends in one."""
        if fill and self.bar.last:
            half = len(next(iter(rhythms.values()))) // 2
            rhythms = {drum: rhythm[:half] + "." * half for drum, rhythm in rhythms.items()}
            hits = "." * half + "".join(self.rng.choice(list("xxo."), half))
            self.write("drums", fill, hits, [[67], [67], [64], [64], [60], [60]])
        for drum, rhythm in rhythms.items():
            self.write("drums", drum, rhythm, [[60]])

    def write(self, part: str, instrument: str, rhythm: str, chords: list[list[int]]) -> None:
        """Add a bar of sound to a part; its notes take the chords (MIDI notes) in turn."""
        sound = self.sounds.setdefault(part, np.zeros(self.samples, np.float32))
        step = self.spec.beats * self.beat / len(rhythm)
        for count, (place, held, velocity) in enumerate(onsets(rhythm)):
            for pitch in chords[count % len(chords)]:
                note = (instrument, pitch, held * step)
                if note not in self.notes:
                    hertz = 440 * 2 ** ((pitch - 69) / 12)
                    play = INSTRUMENTS[instrument]
                    self.notes[note] = play(hertz, held * step, self.rate, self.brightness)
                slip = self.rng.normal(0, self.spec.timing_jitter)
                at = round((self.bar.start + place * step + slip) * self.rate)
                wave = self.notes[note][max(0, -at) : max(0, self.samples - at)]
                at = max(0, at)
                sound[at : at + wave.size] += velocity * (1 + 8 * slip) * wave

    def tune(self, rhythms: list[str]) -> tuple[tuple[str, list[int]], ...]:
        """Compose four bars, A B A C, of (rhythm, degrees above the chord); C comes to rest."""

        def motif(rhythm: str, degree: int) -> tuple[str, list[int]]:
            degrees = []
            for place, *_ in onsets(rhythm):
                if place * self.spec.beats % len(rhythm) == 0:  # on the beat: a chord tone nearby
                    wish = degree + self.rng.integers(-3, 4)
                    degree = min((-3, 0, 2, 4, 7), key=lambda tone: abs(tone - wish))
                else:  # between beats: a step along the scale
                    degree += int(self.rng.choice((-1, 1)))
                degrees.append(degree)
            return rhythm, degrees

        a, b = motif(self.pick(*rhythms), 4), motif(str(self.rng.choice(rhythms)), 2)
        half = len(a[0]) // 2
        rest = a[0][:half] + "x" + "-" * (half - 2) + "."
        return a, b, a, (rest, [*a[1][: len(onsets(rest)) - 1], 0])

    def mix(self) -> np.ndarray:
        """Set each part to its level where it sounds, add effects and a room, limit the peaks."""
        since_beat = (np.arange(self.samples) / self.rate - self.bar.start) / self.beat % 1
        total = np.zeros(self.samples, np.float32)
        for part, wave in self.sounds.items():
            _, level, *effect = self.parts[part]
            power = np.square(wave[: wave.size // 512 * 512]).reshape(-1, 512).mean(1)
            sounding = power[power >= 0.01 * power.max()].mean() + 1e-12
            wave = wave * 10 ** (float(level) / 20) / np.sqrt(sounding)
            if "duck" in effect:  # under the kick on every beat
                wave *= 1 - 0.8 * np.exp(-4 * since_beat)
            total += wave
            if "echo" in effect:  # four times, each duller and softer
                delay = round(0.75 * self.beat * self.rate)
                for late in range(delay, min(5 * delay, self.samples), delay):
                    wave = filtered(0.6 * wave, self.rate, 2500)
                    total[late:] += wave[:-late]
        t = clock(1.5, self.rate)
        walls = noise(t.size) * np.exp(-t / 0.3) / np.sqrt(0.15 * self.rate)
        walls *= self.spec.reverb * (0.5 + self.artist.reverb)
        walls = filtered(walls, self.rate, 4000).astype(np.float32)
        total += signal.oaconvolve(total, walls)[: self.samples]
        return np.tanh(total / total.std() / 3.5)
