"""What an image of music is made with, and what it must be: settings, bounds, checks.

An image of 128 mel bands by 387 columns has the pixel count of the 224 x 224 images that
ImageNet networks were trained on, so a network sees all of a 30 s clip, neither resized nor
squeezed.
"""

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import MelgenreError
from ..files import atomic_write, read_json
from ..text import printable, short
from .audio import SAMPLE_RATE

SETTINGS_FILE = "mel_settings.json"
BOUNDS = {
    "sample_rate": (int, 1000, 768_000), "n_fft": (int, 16, 65_536),
    "hop_length": (int, 1, 2**20), "n_mels": (int, 1, 1024), "top_db": (float, 0.001, 1000),
    "duration": (float, 0.1, 600),
}  # fmt: skip
"""Type, least and greatest value of what a file may set."""
MOST_SAMPLES = 2**26  # of an image's sound: 25 minutes at 44.1 kHz take 270 MB
MOST_COLUMNS, MOST_PIXELS = 2**16, 2**24  # of an image
MOST_POINTS = 2**27  # of an image's Fourier transforms: they take seconds
MOST_WEIGHTS = 2**22  # of the mel filters


class ImageError(MelgenreError, ValueError):
    """An image that does not fit the settings; the message says which and what to do."""


@dataclass(frozen=True)
class MelSettings:
    """What defines an image; saved beside every set of images and inside every model.

    Attributes
    ----------
    sample_rate : int
        In Hz.
    n_fft, hop_length : int
        Window of the Fourier transform and step between two columns, in samples.
    n_mels : int
        Number of mel bands: the image's height.
    top_db : float
        Depth of the image: dB between its white and its black.
    duration : float
        Seconds of sound in one image.
    """

    sample_rate: int = SAMPLE_RATE
    n_fft: int = 2048
    hop_length: int = 1711
    n_mels: int = 128
    top_db: float = 80.0
    duration: float = 30.0

    @property
    def samples(self):
        """Number of samples in one image."""
        return round(self.duration * self.sample_rate)

    @property
    def columns(self):
        """Width of an image: its number of frames."""
        return 1 + self.samples // self.hop_length

    def check_same(self, other, where):
        """Raise `ImageError` if the images of `where` were made with other settings."""
        mine, theirs = asdict(self), asdict(other)
        differing = [
            f"{k} {theirs[k]:g} there, {mine[k]:g} here" for k in mine if mine[k] != theirs[k]
        ]
        if differing:
            raise ImageError(
                f"{where} was made with other settings ({'; '.join(differing)}). Make its images "
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
    ImageError
        If a value is no number, or so large that memory would not suffice.
    """
    unknown = set(values) - set(BOUNDS)
    if unknown:
        raise ImageError(f"unknown: {', '.join(sorted(map(str, unknown)))}")
    settings = MelSettings(**values)
    for name, (kind, least, most) in BOUNDS.items():
        value = getattr(settings, name)
        if type(value) not in (int, kind) or not least <= value <= most:
            what = "a whole number" if kind is int else "a number"
            raise ImageError(f"{name} must be {what} between {least:,} and {most:,}")
    if settings.n_fft % 2:  # an image could be a column narrower than `columns`
        raise ImageError("n_fft must be even")
    if settings.hop_length > 16 * settings.n_fft:
        raise ImageError("hop_length must be at most 16 times n_fft")
    for what, size, most in (
        ("samples", settings.samples, MOST_SAMPLES),
        ("columns", settings.columns, MOST_COLUMNS),
        ("pixels", settings.n_mels * settings.columns, MOST_PIXELS),
        ("points of Fourier transforms", settings.columns * settings.n_fft, MOST_POINTS),
        ("weights in the mel filters", settings.n_mels * (settings.n_fft // 2 + 1), MOST_WEIGHTS),
    ):
        if size > most:
            raise ImageError(f"{size:,} {what} are too many; at most {most:,} are possible")
    return settings


def save_settings(settings, folder):
    """Write the settings beside the images in `folder`."""
    with atomic_write(Path(folder, SETTINGS_FILE)) as part:
        part.write_text(json.dumps(asdict(settings), indent=2) + "\n")


def load_settings(folder):
    """Settings saved in a folder of images, or None where there are none."""
    file = Path(folder, SETTINGS_FILE)
    try:
        return checked_settings(read_json(file))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, OSError) as error:
        raise ImageError(
            f"{SETTINGS_FILE} beside the images of {printable(file.parent.name)} is damaged "
            f"({short(error)}). Make the images again in another folder."
        ) from error


def image_settings(image: str | Path) -> MelSettings:
    """Settings of an image: those saved beside its genre's folder, else the defaults.

    Between the image and that folder may be the folders of an artist and an album.
    """
    saved = next(filter(None, map(load_settings, Path(image).parents[1:4])), None)
    return saved or MelSettings()


def check_image(path, settings=MelSettings()):
    """Raise `ImageError` unless the file is an image of these settings.

    The settings saved beside its genre's folder must be the same, where there are some; between
    the two may lie the folders of an artist and an album. Of the image only the header is read:
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
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=["PNG"]) as image:
            found = (image.mode, image.width, image.height)
    except Exception as error:  # a damaged file brings about errors of any kind
        raise ImageError(f"{name}: not readable as an image. Make it again.") from error
    if found != ("L", settings.columns, settings.n_mels):
        raise ImageError(
            f"{name}: {found[1]} x {found[2]} pixels of mode {found[0]}, where these settings "
            f"give {settings.columns} x {settings.n_mels} of mode L (8-bit grey). It was made with "
            "other settings: make it again from its sound."
        )
