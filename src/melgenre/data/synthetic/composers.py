"""Ten made-up genres of music, each composed bar by bar on a beat grid.

The *score* places notes and mixes the parts; a *composer* for each genre writes one bar at a time.
Rhythms are strings that span a bar (``X`` accent, ``x`` note, ``o`` soft note, ``-`` held, ``.``
silence) and whose length sets the grid: 16 for sixteenths of 4/4, 12 for swung triplets.
Progressions are strings of scale degrees ("1645"). A list of degrees is played in turn, a tuple in
it as a chord.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

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
