"""Samples -> mel-spectrogram -> PNG: one picture a clip, for a whole collection.

A picture of 128 mel bands by 387 columns has the pixel count of the 224 x 224 pictures that
ImageNet networks were trained on, so a network sees all of a 30 s clip, neither resized nor
squeezed. White is the loudest spot of the clip, black is 80 dB below it; the top row is the
highest mel band.
"""

import hashlib
import json
import os
import time
import warnings
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import rfft
from scipy.sparse import csr_array

from ..data.audio import SAMPLE_RATE, AudioError, audio_duration, load_audio
from ..files import atomic_write, locked, names_below, printable, read_json, short, sweep
from ..parallel import on_all_cores

SETTINGS_FILE = "mel_settings.json"
RECORDS_FILE = "sources.json"
SECONDS_BETWEEN_RECORDS = 2  # a killed run makes again what it made since
LONGEST_NAME = 251  # of a picture without its ending, in bytes


BOUNDS = {
    "sample_rate": (int, 1000, 768_000), "n_fft": (int, 16, 65_536),
    "hop_length": (int, 1, 2**20), "n_mels": (int, 1, 1024), "top_db": (float, 0.001, 1000),
    "duration": (float, 0.1, 600),
}  # fmt: skip
"""Type, least and greatest value of what a file may set."""

MOST_SAMPLES = 2**26  # of a picture's sound: 25 minutes at 44.1 kHz take 270 MB
MOST_COLUMNS, MOST_PIXELS = 2**16, 2**24  # of a picture
MOST_POINTS = 2**27  # of a picture's Fourier transforms: they take seconds
MOST_WEIGHTS = 2**22  # of the mel filters


class PictureError(ValueError):
    """A picture that does not fit the settings; the message says which and what to do."""


@dataclass(frozen=True)
class MelSettings:
    """What defines a picture; saved beside every set of pictures and inside every model.

    Attributes
    ----------
    sample_rate : int
        In Hz.
    n_fft, hop_length : int
        Window of the Fourier transform and step between two columns, in samples.
    n_mels : int
        Number of mel bands: the picture's height.
    top_db : float
        Depth of the picture: dB between its white and its black.
    duration : float
        Seconds of sound in one picture.
    """

    sample_rate: int = SAMPLE_RATE
    n_fft: int = 2048
    hop_length: int = 1711
    n_mels: int = 128
    top_db: float = 80.0
    duration: float = 30.0

    @property
    def samples(self):
        """Number of samples in one picture."""
        return round(self.duration * self.sample_rate)

    @property
    def columns(self):
        """Width of a picture: its number of frames."""
        return 1 + self.samples // self.hop_length

    def check_same(self, other, where):
        """Raise `PictureError` if the pictures of `where` were made with other settings."""
        mine, theirs = asdict(self), asdict(other)
        differing = [
            f"{k} {theirs[k]:g} there, {mine[k]:g} here" for k in mine if mine[k] != theirs[k]
        ]
        if differing:
            raise PictureError(
                f"{where} was made with other settings ({'; '.join(differing)}). Make its pictures "
                "again in another folder, or use the settings they were made with."
            )


def checked_settings(values):
    """The settings that a file describes.

    Parameters
    ----------
    values : dict
        As `save_settings` writes it.

    Returns
    -------
    MelSettings

    Raises
    ------
    PictureError
        If a value is no number, or so large that memory would not suffice.
    """
    unknown = set(values) - set(BOUNDS)
    if unknown:
        raise PictureError(f"unknown: {', '.join(sorted(map(str, unknown)))}")
    settings = MelSettings(**values)
    for name, (kind, least, most) in BOUNDS.items():
        value = getattr(settings, name)
        if type(value) not in (int, kind) or not least <= value <= most:
            what = "a whole number" if kind is int else "a number"
            raise PictureError(f"{name} must be {what} between {least:,} and {most:,}")
    if settings.n_fft % 2:  # a picture could be a column narrower than `columns`
        raise PictureError("n_fft must be even")
    if settings.hop_length > 16 * settings.n_fft:
        raise PictureError("hop_length must be at most 16 times n_fft")
    for what, size, most in (
        ("samples", settings.samples, MOST_SAMPLES),
        ("columns", settings.columns, MOST_COLUMNS),
        ("pixels", settings.n_mels * settings.columns, MOST_PIXELS),
        ("points of Fourier transforms", settings.columns * settings.n_fft, MOST_POINTS),
        ("weights in the mel filters", settings.n_mels * (settings.n_fft // 2 + 1), MOST_WEIGHTS),
    ):
        if size > most:
            raise PictureError(f"{size:,} {what} are too many; at most {most:,} are possible")
    return settings


def save_settings(settings, folder):
    """Write the settings beside the pictures in `folder`."""
    with atomic_write(Path(folder, SETTINGS_FILE)) as part:
        part.write_text(json.dumps(asdict(settings), indent=2) + "\n")


def load_settings(folder):
    """Settings saved in a folder of pictures, or None where there are none."""
    file = Path(folder, SETTINGS_FILE)
    try:
        return checked_settings(read_json(file))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, OSError) as error:
        raise PictureError(
            f"{SETTINGS_FILE} beside the pictures of {printable(file.parent.name)} is damaged "
            f"({short(error)}). Make the pictures again in another folder."
        ) from error


def mel_decibels(y, settings=MelSettings()):
    """Mel-spectrogram in dB below its own maximum.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)]
        Samples at `settings.sample_rate`.
    settings : MelSettings

    Returns
    -------
    np.ndarray [shape=(n_mels, 1 + n // hop_length), dtype=float32]
        Between `-top_db` and 0 dB; row 0 is the lowest band. Silence is `-top_db` everywhere.
    """
    # What librosa's melspectrogram and power_to_db give (tests compare them), in half the time.
    n_fft, bands = settings.n_fft, mel_bands(settings)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
    frames = sliding_window_view(np.pad(y, n_fft // 2), n_fft)[:: settings.hop_length].T
    power = np.empty((settings.n_mels, frames.shape[1]), np.float32)
    for start in range(0, frames.shape[1], 128):  # so many fit into the CPU's cache
        spectrum = rfft(frames[:, start : start + 128] * window[:, None], axis=0)
        power[:, start : start + 128] = bands @ (spectrum.real**2 + spectrum.imag**2)
    # librosa's floor for power; a clip that nowhere rises above it would come out all white.
    loudest = power.max()
    if loudest <= 1e-10:
        return np.full_like(power, -settings.top_db)
    decibels = 10 * np.log10(np.maximum(power, 1e-10) / loudest)
    return np.maximum(decibels, -settings.top_db)


@lru_cache
def mel_bands(settings):
    """The mel filters that librosa makes, without the seconds that importing it takes.

    Triangles of equal area on the scale of Slaney, "Auditory Toolbox" (1998): linear up to 1 kHz,
    logarithmic above.

    Parameters
    ----------
    settings : MelSettings

    Returns
    -------
    scipy.sparse.csr_array [shape=(n_mels, 1 + n_fft // 2), dtype=float32]
        Weight of each frequency of the Fourier transform in each band. Nearly all are zero; and
        the threads of a dense product would still be spinning when the network wants the cores.
    """
    # In mels of 200/3 Hz: 15 of them make the linear part, and then 27 make a factor of 6.4.
    per_octave = 27 / np.log(6.4)
    nyquist = settings.sample_rate / 2
    highest = 15 + per_octave * np.log(nyquist / 1000) if nyquist > 1000 else nyquist * 3 / 200
    mels = np.linspace(0, highest, settings.n_mels + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) / per_octave))
    frequencies = np.linspace(0, nyquist, 1 + settings.n_fft // 2)
    low, centre, high = (edges[i : i + settings.n_mels, None] for i in range(3))
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    bands = np.minimum(rising, falling).clip(min=0) * 2 / (high - low)
    return csr_array(bands.astype(np.float32))


def fit_duration(y, settings=MelSettings()):
    """Exactly one picture's worth of samples.

    A longer recording gives its middle (from a whole number of hops, so that a clip a few samples
    too long starts at its first); a shorter one is repeated, since a genre is a texture and half
    a picture of silence would be none of the genre's.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)]

    Returns
    -------
    np.ndarray [shape=(settings.samples,)]
    """
    spare = len(y) - settings.samples
    if spare < 0:
        return np.resize(y, settings.samples)
    start = spare // 2 // settings.hop_length * settings.hop_length
    return y[start : start + settings.samples]


def melspectrogram_picture(y, settings=MelSettings()):
    """The picture of one clip.

    Parameters
    ----------
    y : np.ndarray [shape=(n,)]
        Samples at `settings.sample_rate`; see `fit_duration` for other lengths than a clip's.

    Returns
    -------
    np.ndarray [shape=(n_mels, columns), dtype=uint8]
        0 is `-top_db`, 255 is the clip's maximum; row 0 is the highest mel band.
    """
    decibels = mel_decibels(fit_duration(y, settings), settings)
    grey = np.rint((decibels / settings.top_db + 1) * 255)
    return np.flipud(grey).astype(np.uint8)


def load_clip(path, settings=MelSettings()):
    """Samples of a recording's middle, as long as one picture; shorter if the recording is."""
    # A second more than needed lets `fit_duration` choose, whatever the file's own rate.
    spare = max(0.0, audio_duration(path) - settings.duration - 1)
    return load_audio(
        path, sample_rate=settings.sample_rate, offset=spare / 2, duration=settings.duration + 1
    )


def check_picture(path, settings=MelSettings()):
    """Raise `PictureError` unless the file is a picture of these settings.

    The settings saved beside its genre's folder must be the same, where there are some; between
    the two may lie the folders of an artist and an album. Of the picture only the header is read:
    8-bit grey, `n_mels` high, `columns` wide.
    """
    from PIL import Image

    path = Path(path)
    saved = next(filter(None, map(load_settings, path.parents[1:4])), None)
    if saved is not None:
        settings.check_same(saved, printable(path.name))
    name = printable(path.name)
    try:
        # What Pillow warns of, a size that is too large, is told below.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=["PNG"]) as picture:
            found = (picture.mode, picture.width, picture.height)
    except Exception as error:  # a damaged file brings about errors of any kind
        raise PictureError(f"{name}: not readable as a picture. Make it again.") from error
    if found != ("L", settings.columns, settings.n_mels):
        raise PictureError(
            f"{name}: {found[1]} x {found[2]} pixels of mode {found[0]}, where these settings "
            f"give {settings.columns} x {settings.n_mels} of mode L (8-bit grey). It was made with "
            "other settings: make it again from its sound."
        )


def extract_melspectrograms(tracks, folder, *, settings=MelSettings(), progress=True):
    """One PNG per track, in `<folder>/<genre>/…/<track>.png`; a second call makes what is missing.

    A track that has a picture made earlier keeps it. `sources.json` in the folder records the file
    that each picture was made from, its size and its time: when one of these differs, the picture
    is made again. What cannot be read is skipped, counted, and listed at the end.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `track_id`, `genre`, `path` (missing where there is no sound), and possibly `picture`.
    folder : str or Path
    settings : MelSettings
    progress : bool
        Show a progress bar.

    Returns
    -------
    pd.DataFrame
        The tracks that have a picture, with its file in the column `picture`.

    Raises
    ------
    PictureError
        If the folder holds pictures of other settings, or no track could be read.
    """
    # Here alone: a model answers where only ONNX Runtime and librosa are installed.
    import pandas as pd

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        earlier = load_settings(folder)
        if earlier is None:
            save_settings(settings, folder)
        else:
            settings.check_same(earlier, f"The folder of pictures {folder.name}")
        pictures = tracks.get("picture", pd.Series(None, index=tracks.index)).astype(object)
        ours = [
            str(_picture_file(folder, genre, track))
            for genre, track in zip(tracks["genre"], tracks["track_id"], strict=True)
        ]
        tracks = tracks.assign(picture=pictures.where(pictures.notna(), ours))
        broken = _make_missing(tracks[pictures.isna()], folder, settings, progress)
    if broken:
        print(f"{len(broken)} of {len(tracks)} tracks skipped:", *broken, sep="\n  ")
    tracks = tracks[[Path(picture).exists() for picture in tracks["picture"]]]
    if tracks.empty:
        raise PictureError("No track could be turned into a picture; see the reasons above.")
    return tracks.reset_index(drop=True)


def _picture_file(folder, genre, track):
    """Where a track's picture lies; names that leave no room for `.png` are shortened."""
    *parents, name = map(_shortened, [genre, *track.removeprefix(f"{genre}/").split("/")])
    return Path(folder, *parents, f"{name}.png")


def _shortened(name):
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    mark = hashlib.md5(os.fsencode(name)).hexdigest()[:8]
    return f"{os.fsencode(name)[: LONGEST_NAME - 9].decode('utf-8', 'ignore')}-{mark}"


def _make_missing(tracks, folder, settings, progress):
    """Make the pictures that are missing or whose source has changed; returns what failed."""
    records = _read_records(folder)
    earlier = records.copy()
    todo, sources = [], []
    for path, picture in zip(tracks["path"], map(Path, tracks["picture"]), strict=True):
        source = _describe_source(path, folder)
        recorded = records.get(picture.relative_to(folder).as_posix())
        if not picture.exists() or (source is not None and source != recorded):
            todo.append((path if isinstance(path, str) else None, picture, settings))
            sources.append(source)
    for parent in {picture.parent for _, picture, _ in todo}:
        sweep(parent)
    done = on_all_cores(_draw, todo, desc="pictures", unit=" clips", progress=progress)
    reasons, written = [], time.monotonic()
    try:
        for (_, picture, _), source, reason in zip(todo, sources, done, strict=False):
            reasons.append(reason)
            records.pop(picture.relative_to(folder).as_posix(), None)
            if reason is None:
                records[picture.relative_to(folder).as_posix()] = source
            if time.monotonic() - written > SECONDS_BETWEEN_RECORDS:
                _write_records(folder, records)
                written = time.monotonic()
    finally:
        if records != earlier:  # a set of pictures may be read-only
            _write_records(folder, records)
    named = names_below([path or picture for path, picture, _ in todo])
    return [f"{name}: {reason}" for name, reason in zip(named, reasons, strict=True) if reason]


def _describe_source(path, folder):
    """Path below or beside the folder of pictures, size and time of a sound; None without one."""
    try:
        status = os.stat(path)
    except (OSError, TypeError, ValueError):  # a missing path is no string
        return None
    return [os.path.relpath(path, folder), status.st_size, status.st_mtime_ns]


def _read_records(folder):
    """What each picture was made from, by its path below the folder; empty if it is damaged."""
    try:
        records = json.loads(Path(folder, RECORDS_FILE).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return records if isinstance(records, dict) else {}


def _write_records(folder, records):
    with atomic_write(Path(folder, RECORDS_FILE)) as part:
        part.write_text(json.dumps(dict(sorted(records.items())), indent=0) + "\n")


def _draw(path, target, settings):
    """Write one picture; returns None, or the reason why there is none."""
    from PIL import Image

    if path is None:
        return "neither a picture nor sound."
    try:
        picture = melspectrogram_picture(load_clip(path, settings), settings)
    except Exception as error:  # one recording never ends a folder
        with suppress(OSError):
            target.unlink(missing_ok=True)  # a picture of sound that is gone shows nothing any more
        if isinstance(error, AudioError):
            return error.reason
        return f"cannot be turned into a picture ({type(error).__name__}). Convert it to wav."
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as part:
            # Half the time of the usual search for repetitions, of which such a picture has none.
            Image.fromarray(picture).save(part, format="PNG", compress_type=zlib.Z_RLE)
    except OSError as error:
        # A full disk ends the run: what comes next could not be written either.
        raise PictureError(
            f"{target.name} cannot be written ({error.strerror}). Make room or choose another "
            "folder, and run this again: it resumes."
        ) from error
    return None
