"""Ten invented genres of music; the composer of each writes one bar at a time onto the score."""

from collections.abc import Callable

from .score import SEVENTH, TRIAD, GenreSpec, Score

# Writes one bar, at a level from 1 (bare) to 3 (full).
Composer = Callable[[Score, int], None]

GENRE_SPECS = {
    "bellrain": GenreSpec(84, 104, 4, 0.004, 0.35, "lydian major dorian", "1456 6415 1362 4163"),
    "bitmarch": GenreSpec(108, 128, 4, 0.0, 0.0, "major mixolydian", "1415 1625 4156 6451"),
    "choirdrift": GenreSpec(44, 56, 4, 0.05, 0.5, "minor dorian lydian", "1643 1715 6413 1415"),
    "fuzzgallop": GenreSpec(
        150, 178, 4, 0.004, 0.12, "minor phrygian dorian", "1167 1121 1637 6711"
    ),
    "musicboxwaltz": GenreSpec(
        120, 156, 3, 0.008, 0.3, "major lydian", "14511451 16251625 14361425"
    ),
    "pluckreel": GenreSpec(
        104, 126, 2, 0.006, 0.15, "mixolydian dorian major", "11771147 14151475"
    ),
    "skankecho": GenreSpec(
        66, 80, 4, 0.008, 0.15, "minor dorian mixolydian", "1414 1716 1515 6415"
    ),
    "stompfloor": GenreSpec(120, 132, 4, 0.0, 0.1, "minor dorian phrygian", "1635 1176 6741 1436"),
    "subbreak": GenreSpec(160, 176, 4, 0.004, 0.12, "minor dorian", "11664433 11116677 66441133"),
    "swingwalk": GenreSpec(
        132, 184, 4, 0.01, 0.2, "dorian mixolydian major", "2511 1625 3625 25114511"
    ),
}
COMPOSERS: dict[str, tuple[Composer, dict[str, list[str]]]] = {}  # with their parts


def arrangement(**parts: str) -> Callable[[Composer], Composer]:
    """Register a composer with its parts, each "instrument level-in-dB", perhaps with an effect."""

    def register(compose: Composer) -> Composer:
        parts_of = {part: words.split() for part, words in parts.items()}
        COMPOSERS[compose.__name__] = compose, parts_of
        return compose

    return register


@arrangement(rain="bell 0 echo", pad="choir -9", drops="bell -6", tune="keys -2")
def bellrain(score: Score, level: int) -> None:
    """FM bells rain in broken chords over a soft pad; no drums."""
    figure = score.pick(
        [0, 2, 4, 7, 9, 7, 4, 2], [0, 4, 7, 9, 11, 9, 7, 4], [7, 4, 2, 0, 2, 4, 9, 7]
    )
    score.play("rain", "xoxoxoxoxoxoxoxo", figure, 1)
    score.play("pad", "x---------------", [TRIAD])
    if level >= 2:
        score.play("drops", score.pick("..x..x....x..x..", "...x..x..x....x."), figure[::-2], 3)
    if level == 3:
        score.play_melody("tune", 2, "x-----x-x------- x---x-----x-----")


@arrangement(bass="triangle -3", tune="square 0", chords="square -6", drums="kit -5")
def bitmarch(score: Score, level: int) -> None:
    """A toy console marches: pulse-wave tune, oom-pah bass, snare rolls."""
    roll = score.pick("x..xx.x.x..xx.xx", "x.oox.oox.oxxxxx", "x...x.xxx...x.x.")
    score.drums("snare", kick="x.......x.......", snare=roll)
    score.play("bass", "x-..x-..x-..x-..", [0, -3], -1)
    score.play_melody("tune", 2, "x-x.x-x.x--xx-x. x--xx-x.x-x-x--- x-xxx-x.x-xxx-x.")
    if level >= 2:
        score.play("chords", "..x...x...x...x.", [TRIAD], 1)
    if level == 3:  # broken chords so fast that they blur into one
        score.play("chords", "x" * 32, [0, 2, 4, 7], 2)


@arrangement(drone="choir -8", choir="choir -2", solo="choir 0")
def choirdrift(score: Score, level: int) -> None:
    """Voices drift over a drone, slowly and without a beat."""
    score.play("drone", "x---------------", [(-score.bar.root, 4 - score.bar.root)], -1)
    score.play("choir", "x---------------", [TRIAD], 1)
    if level >= 2 or score.bar.place % 2:
        score.play_melody("solo", 2, "x---x-----x----- ....x---x-------")


@arrangement(riff="fuzz 0", bass="bass -5", drums="kit 0", solo="solo -3")
def fuzzgallop(score: Score, level: int) -> None:
    """Galloping power chords, a kick drum on every note of the gallop, wailing solos."""
    gallop = score.pick("X-xxX-xxX-xxX-xx", "X-xxX-xxX-x-X-x-", "XxxxX-xxXxxxX-xx")
    held = level == 2 and score.bar.section % 2
    score.play("riff", "X-------x---x---" if held else gallop, [0] * 9 + [1, 1], -1)
    score.play("bass", gallop, [0], -1)
    score.drums("tom", kick=gallop, snare="....X.......X...", hat="x...x...x...x...")
    if score.bar.place == 0:
        score.drums(crash="x...............")
    if level == 3:
        score.play_melody("solo", 1, "x-x-x-x-xxx-x--- x---xxx-x-x-xxxx xxxxx---x-xxx---")


@arrangement(bass="pluck -4", chords="box -5", tune="box 0", second="box -8", harp="pluck -8")
def musicboxwaltz(score: Score, level: int) -> None:
    """A music box turns in three-four time over a plucked bass."""
    rhythms = "x---x-x-x--- x-----x---x- x---x---x-x- x-x-x-x---x-"
    score.play("bass", "x-----------", [0], -1)
    score.play("chords", "....x---x---", [TRIAD], 1)
    score.play_melody("tune", 3, rhythms)
    if level >= 2:
        score.play_melody("second", 2, rhythms)
    if level == 3:
        score.play("harp", score.pick("x-o-o-o-o-o-", "x-----o---o-"), [0, 4, 7, 9, 7, 4])


@arrangement(tune="pluck 0", drone="pluck -3", strum="pluck -5", second="reed -6", drums="kit -4")
def pluckreel(score: Score, level: int) -> None:
    """Plucked strings reel in running six-eight over a drone and a frame drum."""
    rhythms = "xxxxxx x-xxxx xxxx-x x-xx-x"
    score.play_melody("tune", 2, rhythms)
    score.play("drone", "x--x--", [(-score.bar.root, 4 - score.bar.root)], -1)
    if level >= 2:
        score.drums(tom=score.pick("x.ox.o", "x..x.x", "x.xxoo"))
        score.play("strum", score.pick("x-xx-x", "..x..x"), [TRIAD], 1)
    if level == 3:
        score.play_melody("second", 1, rhythms)
        score.drums(clap="...x..")


@arrangement(
    bass="bass 2", skank="organ -3 echo", stab="organ -8 echo", tune="reed -5 echo", drums="kit -2"
)
def skankecho(score: Score, level: int) -> None:
    """Slow organ chops between the beats, heavy bass, one drum stroke a bar, long echoes."""
    line = score.pick("x--.x-x-....x-x-", "....x--xx-..x---", "x-x-..x---x-x-..")
    hats = score.pick("x.o.x.o.x.o.x.o.", "x..ox..ox..ox..o")
    score.drums("tom", kick="........x.......", snare="........x.......", hat=hats)
    score.play("bass", line, score.pick([0, 0, 2, 4, 2], [0, 4, 0, 2, -3]), -1)
    score.play("skank", score.pick("..x...x...x...x.", "..xo..xo..xo..xo"), [TRIAD], 1)
    if level >= 2 and score.bar.place % 2:
        score.play("stab", "......x.........", [TRIAD], 2)
    if level == 3:
        score.play_melody("tune", 1, "....x-x-x---.... x---..x-x-x-....")


@arrangement(drums="kit 2", bass="saw -3 duck", stabs="saw -3 duck", lead="saw -5 duck")
def stompfloor(score: Score, level: int) -> None:
    """Kick on every beat, off-beat bass and hats, saw stabs that duck under the kick."""
    score.drums("clap", kick="X...X...X...X...", open_hat="..x...x...x...x.")
    score.play("bass", score.pick("..x-..x-..x-..x-", "..xx..xx..xx..xx"), [0], -1)
    if level >= 2:
        stabs = score.pick("x-.x-.x-..x-.x-.", "..x-..x-..x-..x-", "x-.x-.x-x-.x-.x-")
        score.play("stabs", stabs, [TRIAD], 1)
        score.drums(clap="....x.......x...", hat="xoxoxoxoxoxoxoxo")
    if level != 2:
        score.play_melody("lead", 1, "x.x.xx.x.xx.x.x. x.xxx.x.x.xxx.xx")


@arrangement(drums="kit -2", sub="sub 2", keys="keys -6 echo", air="choir -7")
def subbreak(score: Score, level: int) -> None:
    """Broken drums at full speed over a min_bpm, very deep bass and hazy keys."""
    odd = score.bar.place % 2
    kicks = score.pick("x.........x.....", "x.x.......xx....", "x.....x...x.....")
    snares = score.pick("....X..o.o..X..o", "....X..o....X.o.", "....X....o.oX..o")
    hats = score.pick("x.x.x.x.x.x.x.x.", "x.xox.xox.xox.xo")
    score.drums("snare", kick=kicks, snare=snares, hat=hats)
    score.play("sub", "......x-----x---" if odd else "x-----------x---", [0, -3], -1)
    if level >= 2:
        score.play("keys", "...x--------x---" if odd else "x------x--------", [SEVENTH], 1)
    if level == 3:
        score.play_melody("air", 1, "x-----x--------- ....x---x-----x-")


@arrangement(bass="bass -1", drums="kit -4", reed="reed 0", comping="keys -6")
def swingwalk(score: Score, level: int) -> None:
    """A walking bass and a swung ride carry a reed that takes solos over keys."""
    approach = score.bar.step + score.rng.choice((-1, 1))  # lead into the next chord by a step
    score.play("bass", "x--x--x--x--", [0, score.rng.choice((1, 2)), 4, approach], -1)
    score.drums("snare" if level >= 2 else "", ride="x..x.ox..x.o", hat="...x.....x..")
    if level >= 2 or score.bar.section % 2:
        score.play_melody("reed", 1, "x-xx-xx--x-x x--x-xx-xx-- ..xx-xx-xx-x x-xx----x--.")
    if level != 2:
        comping = score.pick("x----x......", "..x---..x---", "..x..x......")
        score.play("comping", comping, [SEVENTH], 1)
    if level == 3:
        score.drums(kick="x..o..x..o..", snare="..o.......o.")
