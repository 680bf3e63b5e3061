"""Ten made-up genres of music, composed and rendered in NumPy, for a room without data or network.

The music proves nothing about accuracy on real music, and every figure from it must say so.

The file has three layers: *instruments* turn a note into samples, the *score* places notes on a
beat grid and mixes the parts, and a *composer* for each genre writes one bar at a time. Rhythms are
strings that span a bar (``X`` accent, ``x`` note, ``o`` soft note, ``-`` held, ``.`` silence) and
whose length sets the grid: 16 for sixteenths of 4/4, 12 for swung triplets. Progressions are
strings of scale degrees ("1645"). A list of degrees is played in turn, a tuple in it as a chord.
"""

import csv
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from joblib import Parallel, delayed
from scipy import signal
from tqdm.auto import tqdm

__all__ = ["CLIPS_PER_ARTIST", "GENRES", "make_synthetic_collection", "render_clip"]

CLIPS_PER_ARTIST = 2

# ---- Instruments: (frequency in Hz, seconds held, sample rate, colour 0 dark .. 1 bright) -> wave.


def clock(seconds, rate):
    return np.arange(round(seconds * rate)) / rate


def noise(size):
    return np.random.default_rng(7).standard_normal(size)  # always the same hiss, like a recording


def filtered(wave, rate, cutoff, kind="lowpass"):
    cutoff = min(cutoff, 0.45 * rate)
    return signal.sosfilt(signal.butter(2, cutoff, kind, fs=rate, output="sos"), wave)


def gate(t, held, attack, release):
    return np.minimum(t / attack, 1) * np.clip((held + release - t) / release, 0, 1)


def voice(spectrum, attack, release, decay=0.0, vibrato=0.0, ratios=(1,), drive=0.0):
    """Sustained tone; ``spectrum`` gives its harmonics, ``ratios`` strings at once."""

    def instrument(frequency, seconds, rate, colour):
        t = clock(seconds + release, rate)
        wave = np.zeros(t.size)
        for speed, hertz in enumerate(frequency * np.array(ratios), start=5):
            h = np.arange(1, np.clip(0.45 * rate / hertz, 2, 64))  # none near Nyquist: no aliasing
            period = np.fft.irfft(-1j * np.r_[0, spectrum(h, h * hertz, colour)], 2048) * 1024
            depth = hertz * (2 ** (vibrato / 1200) - 1) / (2 * np.pi * speed)
            sway = depth * np.minimum(2 * t, 1) * np.sin(2 * np.pi * speed * t) if vibrato else 0
            wave += period[((hertz * t + sway) * 2048).astype(int) & 2047]
        if drive:
            wave = filtered(np.tanh(drive * (0.5 + colour) * wave), rate, 2000 + 2000 * colour)
        return wave * gate(t, seconds, attack, release) * np.exp(-decay * t)

    return instrument


def fm(ratio, index, ring, release):
    """Struck tone by frequency modulation; the overtones die away before the tone does."""

    def instrument(frequency, seconds, rate, colour):
        t = clock(seconds + release, rate)
        fade = np.exp(-t / ring)
        depth = index * (0.4 + 1.2 * colour) * fade * fade * fade
        wave = np.sin(2 * np.pi * frequency * t + depth * np.sin(2 * np.pi * frequency * ratio * t))
        return wave * fade * gate(t, seconds, 0.002, release)

    return instrument


def pluck(frequency, seconds, rate, colour):
    """Karplus-Strong string: a burst of noise in a tuned, slightly damped loop."""
    damping = 0.5 - 0.3 * colour
    period, fraction = divmod(rate / frequency - damping, 1)
    loop = np.convolve([1 - damping, damping], [1 - fraction, fraction])
    t = clock(max(seconds, 0.5) + 0.2, rate)
    burst = filtered(noise(int(period)), rate, 2000 + 5000 * colour)
    burst = np.r_[burst - burst.mean(), np.zeros(t.size - burst.size)]
    wave = signal.lfilter([1], np.r_[1, np.zeros(int(period) - 1), -0.996 * loop], burst)
    return wave * gate(t, max(seconds, 0.5), 0.001, 0.2)


def drum(skin, pitch, dive, thud, hiss, cutoff, snap):
    """Skin that dives to ``pitch`` Hz, fading in ``thud`` s, and hiss fading in ``snap`` s."""

    def instrument(frequency, seconds, rate, colour):
        t = clock(6 * max(thud, snap), rate)
        phase = pitch * frequency / 261.6 * t + dive * (1 - np.exp(-t / 0.025))
        wires = filtered(hiss * noise(t.size), rate, cutoff * (0.7 + 0.6 * colour), "highpass")
        return skin * np.sin(2 * np.pi * phase) * np.exp(-t / thud) + wires * np.exp(-t / snap)

    return instrument


def vowel(h, f, c):
    """Spectrum whose two formants move from "oo" to "ah" with the colour."""
    first, second = (np.exp(-(((f - hertz - 400 * c) / 150) ** 2)) for hertz in (350, 850))
    return (first + 0.5 * second + 0.25) / h


DETUNED, POWER_CHORD = (0.995, 1, 1.006), (1, 1.498, 2.003)  # ratios of strings that sound at once

# Spectra are functions of harmonic number h, its frequency f and the colour c.
INSTRUMENTS = {
    "square": voice(lambda h, f, c: np.sin(np.pi * h * (0.5 - 0.37 * c)) / h, 0.002, 0.02, 1, 15),
    "triangle": voice(lambda h, f, c: np.sin(np.pi * h / 2) / h**2, 0.003, 0.03),
    "saw": voice(
        lambda h, f, c: 1 / (h + h * (f / (700 + 3500 * c)) ** 2), 0.004, 0.12, 2, 0, DETUNED
    ),
    "organ": voice(
        lambda h, f, c: np.isin(h, (1, 2, 3, 4, 6, 8)) / h ** (1.3 - c), 0.006, 0.04, 0, 8
    ),
    "choir": voice(vowel, 0.6, 1.2, 0, 18, (0.996, 1.004)),
    "reed": voice(
        lambda h, f, c: (0.4 + 0.6 * (h % 2)) / h ** (1.6 - 0.7 * c), 0.03, 0.05, 0.3, 22
    ),
    "fuzz": voice(lambda h, f, c: 1 / h, 0.003, 0.02, 0, 0, POWER_CHORD, drive=5),
    "solo": voice(lambda h, f, c: 1 / h, 0.005, 0.04, 0, 35, drive=4),
    "sub": voice(lambda h, f, c: 1.0 * (h == 1), 0.01, 0.05, drive=1.5),
    "bell": fm(3.5, 2.0, 0.5, 1.0),
    "keys": fm(1, 1.3, 0.9, 0.2),
    "box": fm(5.4, 0.9, 0.35, 0.7),
    "bass": fm(1, 1.6, 0.7, 0.06),
    "pluck": pluck,
    "kick": drum(1.0, 48, 3.0, 0.11, 0.2, 1000, 0.004),
    "tom": drum(0.9, 90, 1.0, 0.12, 0.1, 1000, 0.02),
    "snare": drum(0.5, 190, 0.3, 0.05, 0.5, 1500, 0.07),
    "clap": drum(0.0, 100, 0.0, 0.01, 0.7, 1100, 0.08),
    "hat": drum(0.0, 100, 0.0, 0.01, 0.45, 6500, 0.025),
    "open_hat": drum(0.0, 100, 0.0, 0.01, 0.4, 5500, 0.09),
    "crash": drum(0.0, 100, 0.0, 0.01, 0.5, 3500, 0.45),
    "ride": drum(0.04, 4470, 0.0, 0.13, 0.25, 6000, 0.12),
}

# ---- Score: notes on a beat grid, mixed part by part.

MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
}
# How full each section of a clip is: 1 is the bare core of the genre, 3 is everybody playing.
FORMS = ((2, 3, 1, 3), (1, 2, 3, 2), (3, 1, 2, 3), (2, 1, 3, 2), (1, 3, 2, 3))
TRIAD, SEVENTH = (0, 2, 4), (0, 2, 4, 6)


class Frame(NamedTuple):
    """What a genre fixes before a note is written."""

    slow: float  # slowest tempo, beats a minute
    fast: float
    beats: int  # in a bar
    human: float  # spread of the players' timing, seconds
    room: float  # reverb
    modes: str
    progressions: str


@dataclass(frozen=True)
class Artist:
    """Fixed habits that an artist's clips share and other artists' clips do not."""

    pace: float  # where between the genre's slowest and fastest tempo, 0 .. 1
    colour: float  # how bright the instruments are, 0 .. 1
    room: float  # how much reverb, 0 .. 1
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


def onsets(rhythm):
    """List a rhythm's notes as (step, steps held, velocity)."""
    loudness = {"X": 1.25, "x": 1.0, "o": 0.45}
    found = re.finditer(r"[Xxo]-*", rhythm)
    return [(note.start(), len(note[0]), loudness[note[0][0]]) for note in found]


@dataclass
class Score:
    """A clip being composed."""

    rng: np.random.Generator
    frame: Frame
    artist: Artist
    parts: dict  # part -> (instrument, level in dB, perhaps "echo" or "duck")
    rate: int
    samples: int
    beat: float  # seconds
    key: int  # MIDI note of the tonic
    mode: tuple
    colour: float
    bar: Bar = None  # the one being written
    sounds: dict = field(default_factory=dict)  # part -> what it has played
    notes: dict = field(default_factory=dict)  # each distinct note is rendered once
    tunes: dict = field(default_factory=dict)

    def bars(self):
        """Lay out sections of about eight seconds, verse and chorus in turn, and go bar by bar."""
        seconds = self.beat * self.frame.beats
        length = max(2, 2 * round(4 / seconds))
        songs = self.rng.permutation(self.frame.progressions.split())
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

    def pick(self, *options):
        """Choose the option that this artist favours."""
        return options[self.artist.groove % len(options)]

    def pitches(self, degrees, octave):
        """MIDI notes of one degree or of a chord, whose voices stay within one octave."""
        chord = degrees if isinstance(degrees, tuple) else (degrees,)
        places = [divmod(self.bar.root + degree, 7) for degree in chord]
        notes = [self.key + 12 * (octave + higher) + self.mode[place] for higher, place in places]
        low = self.key + 12 * octave - 3
        return notes if len(notes) == 1 else [low + (note - low) % 12 for note in notes]

    def play(self, part, rhythm, degrees, octave=0):
        """Write a part's bar in degrees above the bar's chord, taken in turn."""
        notes = [self.pitches(degree, octave) for degree in degrees]
        self.write(part, self.parts[part][0], rhythm, notes)

    def sing(self, part, octave, rhythms):
        """Play the bar's share of a tune in these rhythms, moved onto the bar's chord."""
        tune = (rhythms, self.bar.section % 2)
        if tune not in self.tunes:
            self.tunes[tune] = self.tune(rhythms.split())
        self.play(part, *self.tunes[tune][self.bar.place % 4], octave)

    def drums(self, fill="", **rhythms):
        """Write a bar of drums; with ``fill``, the last bar of a section ends in one."""
        if fill and self.bar.last:
            half = len(next(iter(rhythms.values()))) // 2
            rhythms = {drum: rhythm[:half] + "." * half for drum, rhythm in rhythms.items()}
            hits = "." * half + "".join(self.rng.choice(list("xxo."), half))
            self.write("drums", fill, hits, [[67], [67], [64], [64], [60], [60]])
        for drum, rhythm in rhythms.items():
            self.write("drums", drum, rhythm, [[60]])

    def write(self, part, instrument, rhythm, chords):
        """Add a bar of sound to a part; its notes take the chords (MIDI notes) in turn."""
        sound = self.sounds.setdefault(part, np.zeros(self.samples, np.float32))
        step = self.frame.beats * self.beat / len(rhythm)
        for count, (place, held, velocity) in enumerate(onsets(rhythm)):
            for pitch in chords[count % len(chords)]:
                note = (instrument, pitch, held * step)
                if note not in self.notes:
                    hertz = 440 * 2 ** ((pitch - 69) / 12)
                    play = INSTRUMENTS[instrument]
                    self.notes[note] = play(hertz, held * step, self.rate, self.colour)
                slip = self.rng.normal(0, self.frame.human)
                at = round((self.bar.start + place * step + slip) * self.rate)
                wave = self.notes[note][max(0, -at) : max(0, self.samples - at)]
                at = max(0, at)
                sound[at : at + wave.size] += velocity * (1 + 8 * slip) * wave

    def tune(self, rhythms):
        """Compose four bars, A B A C, of (rhythm, degrees above the chord); C comes to rest."""

        def motif(rhythm, degree):
            degrees = []
            for place, *_ in onsets(rhythm):
                if place * self.frame.beats % len(rhythm) == 0:  # on the beat: a chord tone nearby
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

    def mix(self):
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
        walls *= self.frame.room * (0.5 + self.artist.room)
        walls = filtered(walls, self.rate, 4000).astype(np.float32)
        total += signal.oaconvolve(total, walls)[: self.samples]
        return np.tanh(total / total.std() / 3.5)


# ---- Composers: each writes one bar, fuller at a higher level.

FRAMES = {
    "bellrain": Frame(84, 104, 4, 0.004, 0.35, "lydian major dorian", "1456 6415 1362 4163"),
    "bitmarch": Frame(108, 128, 4, 0.0, 0.0, "major mixolydian", "1415 1625 4156 6451"),
    "choirdrift": Frame(44, 56, 4, 0.05, 0.5, "minor dorian lydian", "1643 1715 6413 1415"),
    "fuzzgallop": Frame(150, 178, 4, 0.004, 0.12, "minor phrygian dorian", "1167 1121 1637 6711"),
    "musicboxwaltz": Frame(120, 156, 3, 0.008, 0.3, "major lydian", "14511451 16251625 14361425"),
    "pluckreel": Frame(104, 126, 2, 0.006, 0.15, "mixolydian dorian major", "11771147 14151475"),
    "skankecho": Frame(66, 80, 4, 0.008, 0.15, "minor dorian mixolydian", "1414 1716 1515 6415"),
    "stompfloor": Frame(120, 132, 4, 0.0, 0.1, "minor dorian phrygian", "1635 1176 6741 1436"),
    "subbreak": Frame(160, 176, 4, 0.004, 0.12, "minor dorian", "11664433 11116677 66441133"),
    "swingwalk": Frame(
        132, 184, 4, 0.01, 0.2, "dorian mixolydian major", "2511 1625 3625 25114511"
    ),
}
GENRES = tuple(sorted(FRAMES))
COMPOSERS = {}


def orchestra(**parts):
    """Register a composer with its parts, each "instrument level-in-dB", perhaps with an effect."""

    def register(compose):
        parts_of = {part: words.split() for part, words in parts.items()}
        COMPOSERS[compose.__name__] = compose, parts_of
        return compose

    return register


@orchestra(rain="bell 0 echo", pad="choir -9", drops="bell -6", tune="keys -2")
def bellrain(score, level):
    """FM bells rain in broken chords over a soft pad; no drums."""
    figure = score.pick(
        [0, 2, 4, 7, 9, 7, 4, 2], [0, 4, 7, 9, 11, 9, 7, 4], [7, 4, 2, 0, 2, 4, 9, 7]
    )
    score.play("rain", "xoxoxoxoxoxoxoxo", figure, 1)
    score.play("pad", "x---------------", [TRIAD])
    if level >= 2:
        score.play("drops", score.pick("..x..x....x..x..", "...x..x..x....x."), figure[::-2], 3)
    if level == 3:
        score.sing("tune", 2, "x-----x-x------- x---x-----x-----")


@orchestra(bass="triangle -3", tune="square 0", chords="square -6", drums="kit -5")
def bitmarch(score, level):
    """A toy console marches: pulse-wave tune, oom-pah bass, snare rolls."""
    roll = score.pick("x..xx.x.x..xx.xx", "x.oox.oox.oxxxxx", "x...x.xxx...x.x.")
    score.drums("snare", kick="x.......x.......", snare=roll)
    score.play("bass", "x-..x-..x-..x-..", [0, -3], -1)
    score.sing("tune", 2, "x-x.x-x.x--xx-x. x--xx-x.x-x-x--- x-xxx-x.x-xxx-x.")
    if level >= 2:
        score.play("chords", "..x...x...x...x.", [TRIAD], 1)
    if level == 3:  # broken chords so fast that they blur into one
        score.play("chords", "x" * 32, [0, 2, 4, 7], 2)


@orchestra(drone="choir -8", choir="choir -2", solo="choir 0")
def choirdrift(score, level):
    """Voices drift over a drone, slowly and without a beat."""
    score.play("drone", "x---------------", [(-score.bar.root, 4 - score.bar.root)], -1)
    score.play("choir", "x---------------", [TRIAD], 1)
    if level >= 2 or score.bar.place % 2:
        score.sing("solo", 2, "x---x-----x----- ....x---x-------")


@orchestra(riff="fuzz 0", bass="bass -5", drums="kit 0", solo="solo -3")
def fuzzgallop(score, level):
    """Galloping power chords, a kick drum on every note of the gallop, wailing solos."""
    gallop = score.pick("X-xxX-xxX-xxX-xx", "X-xxX-xxX-x-X-x-", "XxxxX-xxXxxxX-xx")
    held = level == 2 and score.bar.section % 2
    score.play("riff", "X-------x---x---" if held else gallop, [0] * 9 + [1, 1], -1)
    score.play("bass", gallop, [0], -1)
    score.drums("tom", kick=gallop, snare="....X.......X...", hat="x...x...x...x...")
    if score.bar.place == 0:
        score.drums(crash="x...............")
    if level == 3:
        score.sing("solo", 1, "x-x-x-x-xxx-x--- x---xxx-x-x-xxxx xxxxx---x-xxx---")


@orchestra(bass="pluck -4", chords="box -5", tune="box 0", second="box -8", harp="pluck -8")
def musicboxwaltz(score, level):
    """A music box turns in three-four time over a plucked bass."""
    rhythms = "x---x-x-x--- x-----x---x- x---x---x-x- x-x-x-x---x-"
    score.play("bass", "x-----------", [0], -1)
    score.play("chords", "....x---x---", [TRIAD], 1)
    score.sing("tune", 3, rhythms)
    if level >= 2:
        score.sing("second", 2, rhythms)
    if level == 3:
        score.play("harp", score.pick("x-o-o-o-o-o-", "x-----o---o-"), [0, 4, 7, 9, 7, 4])


@orchestra(tune="pluck 0", drone="pluck -3", strum="pluck -5", second="reed -6", drums="kit -4")
def pluckreel(score, level):
    """Plucked strings reel in running six-eight over a drone and a frame drum."""
    rhythms = "xxxxxx x-xxxx xxxx-x x-xx-x"
    score.sing("tune", 2, rhythms)
    score.play("drone", "x--x--", [(-score.bar.root, 4 - score.bar.root)], -1)
    if level >= 2:
        score.drums(tom=score.pick("x.ox.o", "x..x.x", "x.xxoo"))
        score.play("strum", score.pick("x-xx-x", "..x..x"), [TRIAD], 1)
    if level == 3:
        score.sing("second", 1, rhythms)
        score.drums(clap="...x..")


@orchestra(
    bass="bass 2", skank="organ -3 echo", stab="organ -8 echo", tune="reed -5 echo", drums="kit -2"
)
def skankecho(score, level):
    """Slow organ chops between the beats, heavy bass, one drum stroke a bar, long echoes."""
    line = score.pick("x--.x-x-....x-x-", "....x--xx-..x---", "x-x-..x---x-x-..")
    hats = score.pick("x.o.x.o.x.o.x.o.", "x..ox..ox..ox..o")
    score.drums("tom", kick="........x.......", snare="........x.......", hat=hats)
    score.play("bass", line, score.pick([0, 0, 2, 4, 2], [0, 4, 0, 2, -3]), -1)
    score.play("skank", score.pick("..x...x...x...x.", "..xo..xo..xo..xo"), [TRIAD], 1)
    if level >= 2 and score.bar.place % 2:
        score.play("stab", "......x.........", [TRIAD], 2)
    if level == 3:
        score.sing("tune", 1, "....x-x-x---.... x---..x-x-x-....")


@orchestra(drums="kit 2", bass="saw -3 duck", stabs="saw -3 duck", lead="saw -5 duck")
def stompfloor(score, level):
    """Kick on every beat, off-beat bass and hats, saw stabs that duck under the kick."""
    score.drums("clap", kick="X...X...X...X...", open_hat="..x...x...x...x.")
    score.play("bass", score.pick("..x-..x-..x-..x-", "..xx..xx..xx..xx"), [0], -1)
    if level >= 2:
        stabs = score.pick("x-.x-.x-..x-.x-.", "..x-..x-..x-..x-", "x-.x-.x-x-.x-.x-")
        score.play("stabs", stabs, [TRIAD], 1)
        score.drums(clap="....x.......x...", hat="xoxoxoxoxoxoxoxo")
    if level != 2:
        score.sing("lead", 1, "x.x.xx.x.xx.x.x. x.xxx.x.x.xxx.xx")


@orchestra(drums="kit -2", sub="sub 2", keys="keys -6 echo", air="choir -7")
def subbreak(score, level):
    """Broken drums at full speed over a slow, very deep bass and hazy keys."""
    odd = score.bar.place % 2
    kicks = score.pick("x.........x.....", "x.x.......xx....", "x.....x...x.....")
    snares = score.pick("....X..o.o..X..o", "....X..o....X.o.", "....X....o.oX..o")
    hats = score.pick("x.x.x.x.x.x.x.x.", "x.xox.xox.xox.xo")
    score.drums("snare", kick=kicks, snare=snares, hat=hats)
    score.play("sub", "......x-----x---" if odd else "x-----------x---", [0, -3], -1)
    if level >= 2:
        score.play("keys", "...x--------x---" if odd else "x------x--------", [SEVENTH], 1)
    if level == 3:
        score.sing("air", 1, "x-----x--------- ....x---x-----x-")


@orchestra(bass="bass -1", drums="kit -4", reed="reed 0", comping="keys -6")
def swingwalk(score, level):
    """A walking bass and a swung ride carry a reed that takes solos over keys."""
    approach = score.bar.step + score.rng.choice((-1, 1))  # lead into the next chord by a step
    score.play("bass", "x--x--x--x--", [0, score.rng.choice((1, 2)), 4, approach], -1)
    score.drums("snare" if level >= 2 else "", ride="x..x.ox..x.o", hat="...x.....x..")
    if level >= 2 or score.bar.section % 2:
        score.sing("reed", 1, "x-xx-xx--x-x x--x-xx-xx-- ..xx-xx-xx-x x-xx----x--.")
    if level != 2:
        comping = score.pick("x----x......", "..x---..x---", "..x..x......")
        score.play("comping", comping, [SEVENTH], 1)
    if level == 3:
        score.drums(kick="x..o..x..o..", snare="..o.......o.")


# ---- Clips and the collection.


def render_clip(genre, number, *, duration=30.0, sample_rate=22050, seed=0):
    """Compose and render one clip of made-up music.

    Clips ``2 * k`` and ``2 * k + 1`` of a genre are by the same made-up artist.

    Parameters
    ----------
    genre : str
        One of `GENRES`.
    number : int
        Which clip of the genre, from 0.
    duration : float, optional
        Length in seconds, at least 1.
    sample_rate : int, optional
        Samples a second.
    seed : int, optional
        A different seed makes a different collection.

    Returns
    -------
    numpy.ndarray, shape=(round(duration * sample_rate),), float32
        Mono samples, at most 0.9 in magnitude; the same arguments give the same samples.

    Raises
    ------
    ValueError
        If `genre` is not one of `GENRES`, or `duration` is too short for a note.
    """
    if genre not in GENRES:
        raise ValueError(
            f"Genre {genre!r} cannot be rendered because it is not one of the made-up genres; "
            f"choose one of {', '.join(GENRES)}."
        )
    if duration < 1:
        raise ValueError(
            f"A clip of {duration} s cannot be rendered because it may fall between two notes; "
            "ask for 1 s or more."
        )
    index, frame = GENRES.index(genre), FRAMES[genre]
    # The trailing 1 keeps an artist's stream apart from that of the clip with the same number.
    habits = np.random.default_rng((seed, index, number // CLIPS_PER_ARTIST, 1))
    artist = Artist(*habits.uniform(size=3).tolist(), *habits.integers((12, 12, 8)).tolist())

    rng = np.random.default_rng((seed, index, number))
    pace = np.clip(artist.pace + rng.normal(0, 0.08), 0, 1)
    modes = frame.modes.split()
    compose, parts = COMPOSERS[genre]
    score = Score(
        rng=rng,
        frame=frame,
        artist=artist,
        parts=parts,
        rate=sample_rate,
        samples=round(duration * sample_rate),
        beat=60 / (frame.slow + pace * (frame.fast - frame.slow)),
        key=45 + artist.register + int(rng.integers(5)),
        mode=MODES[modes[(artist.mode + (rng.random() < 0.25)) % len(modes)]],
        colour=float(np.clip(artist.colour + rng.normal(0, 0.06), 0, 1)),
    )
    for bar in score.bars():
        compose(score, bar.level)
    wave = score.mix()
    fade = np.minimum(1, np.arange(wave.size) / (0.01 * sample_rate))
    wave = wave * fade * fade[::-1]
    return (rng.uniform(0.6, 0.9) / np.abs(wave).max() * wave).astype(np.float32)


def make_synthetic_collection(folder, *, clips_per_genre=16, duration=30.0, seed=0, progress=True):
    """Write the made-up collection in GTZAN's layout, on all cores.

    A file that is already there is kept, whatever its duration or seed, so a call that was cut off
    goes on where it stopped.

    Parameters
    ----------
    folder : str or os.PathLike
        Where to write; made if missing.
    clips_per_genre : int, optional
        Clips of each of the ten genres.
    duration : float, optional
        Length of a clip in seconds.
    seed : int, optional
        A different seed makes a different collection.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    pathlib.Path
        `folder`, which then holds ``genres/<genre>/<genre>.NNNNN.wav`` (22050 Hz, mono, 16 bit),
        ``tracks.csv`` (track_id, genre, artist_id) and ``SYNTHETIC.md``.
    """
    folder = Path(folder)
    clips = [(genre, number) for genre in GENRES for number in range(clips_per_genre)]
    paths = {clip: folder / "genres" / clip[0] / f"{clip[0]}.{clip[1]:05d}.wav" for clip in clips}
    missing = [clip for clip in clips if not paths[clip].exists()]
    for genre in GENRES:
        (folder / "genres" / genre).mkdir(parents=True, exist_ok=True)

    def write_clip(clip):
        wave = render_clip(*clip, duration=duration, seed=seed)
        with replacing(paths[clip]) as part:
            soundfile.write(part, wave, 22050, subtype="PCM_16", format="WAV")

    work = Parallel(n_jobs=-1, return_as="generator")(delayed(write_clip)(clip) for clip in missing)
    for _ in tqdm(work, total=len(missing), desc="made-up clips", disable=not progress):
        pass

    with replacing(folder / "tracks.csv") as part, part.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("track_id", "genre", "artist_id"))
        for genre, number in clips:
            artist_id = f"{genre}-artist-{number // CLIPS_PER_ARTIST}"
            table.writerow((f"{genre}.{number:05d}", genre, artist_id))
    with replacing(folder / "SYNTHETIC.md") as part:
        part.write_text(
            "Made-up music, composed and rendered by melgenre's synthetic room. "
            "It proves nothing about accuracy on real music.\n"
        )
    return folder


@contextmanager
def replacing(path):
    """Give a temporary name beside ``path``, which takes its place once the block ends well."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
