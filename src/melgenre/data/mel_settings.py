"""The settings of a mel-spectrogram image: their bounds, their file, and the check of an image.

An image of 128 mel bands by 387 columns has the pixel count of the 224 x 224 images that ImageNet
networks were trained on, so a network receives a whole 30 s clip, neither resized nor squeezed.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import MelgenreError
from ..files import atomic_write, read_json
from ..paths import as_path, is_url
from ..text import printable, short
from .audio import SAMPLE_RATE
from .image_files import read_image, shard_row

SETTINGS_FILE = "mel_settings.json"
BOUNDS = {
    "sample_rate": (int, 1000, 768_000),
    "n_fft": (int, 16, 65_536),
    "hop_length": (int, 1, 2**20),
    "n_mels": (int, 1, 1024),
    "top_db": (float, 0.001, 1000),
    "duration": (float, 0.1, 600),
}
"""Type, minimum and maximum of each setting."""
MAX_SAMPLES = 2**26  # per image: 25 minutes at 44.1 kHz take 270 MB
MAX_COLUMNS, MAX_PIXELS = 2**16, 2**24  # per image
MAX_POINTS = 2**27  # of the Fourier transforms of an image: they take seconds
MAX_WEIGHTS = 2**22  # of the mel filters


class ImageError(MelgenreError, ValueError):
    """An image that does not fit its settings, or settings that no image can have."""


@dataclass(frozen=True)
class MelSettings:
    """How an image is made; saved beside every set of images and inside every model.

    Settings are chosen where images are made (`melgenre.extract_melspectrograms`). Later steps
    read them from the images (`image_settings`) or from the model.

    Attributes
    ----------
    sample_rate
        In Hz.
    n_fft, hop_length
        Window of the Fourier transform and step between two columns, in samples.
    n_mels
        Number of mel bands: the height of the image.
    top_db
        Range of the image in dB, from black to white.
    duration
        Seconds of sound in one image.

    Examples
    --------
    >>> MelSettings().n_mels, MelSettings().columns
    (128, 387)
    >>> MelSettings(hop_length=512).columns
    1292
    """

    sample_rate: int = SAMPLE_RATE
    n_fft: int = 2048
    hop_length: int = 1711
    n_mels: int = 128
    top_db: float = 80.0
    duration: float = 30.0

    @property
    def samples(self) -> int:
        """Number of samples in one image."""
        return round(self.duration * self.sample_rate)

    @property
    def columns(self) -> int:
        """Width of an image: its number of frames."""
        return 1 + self.samples // self.hop_length

    def check_same(self, other: MelSettings, where: str) -> None:
        """Raise `ImageError` if `other`, the settings of the images in `where`, differ."""
        differing = ", ".join(
            f"{name} is {theirs:g} there and {ours:g} here"
            for name, ours, theirs in _differences(self, other)
        )
        if differing:
            raise ImageError(
                f"{where} was made with other settings ({differing}). Make its images again in "
                "another folder, or use the settings they were made with."
            )


def _differences(settings, other):
    """Name and both values of each setting that differs."""
    ours, theirs = asdict(settings), asdict(other)
    return [(name, ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]]


SHORT_NAMES = {
    "sample_rate": "rate",
    "n_fft": "fft",
    "hop_length": "hop",
    "n_mels": "mel",
    "top_db": "db",
    "duration": "seconds",
}


def settings_suffix(settings: MelSettings) -> str:
    """The end of a folder's name for images of these settings; empty for the defaults.

    Examples
    --------
    >>> settings_suffix(MelSettings(n_mels=96, hop_length=512))
    '-hop512-mel96'
    >>> settings_suffix(MelSettings())
    ''
    """
    changed = _differences(settings, MelSettings())
    return "".join(f"-{SHORT_NAMES[name]}{value:.10g}" for name, value, _ in changed)


def checked_settings(values: dict[str, Any]) -> MelSettings:
    """The settings of a file or of a user, after a check.

    Parameters
    ----------
    values
        As `save_settings` writes them; the defaults for those that are missing.

    Raises
    ------
    ImageError
        If a name is unknown, a value is no number, or an image would be too large for memory.

    Examples
    --------
    >>> checked_settings({"n_mels": 96}).n_mels
    96
    >>> checked_settings({"n_mels": 0})
    Traceback (most recent call last):
    melgenre.data.mel_settings.ImageError: n_mels must be a whole number between 1 and 1,024
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
        ("samples", settings.samples, MAX_SAMPLES),
        ("columns", settings.columns, MAX_COLUMNS),
        ("pixels", settings.n_mels * settings.columns, MAX_PIXELS),
        ("points of Fourier transforms", settings.columns * settings.n_fft, MAX_POINTS),
        ("weights in the mel filters", settings.n_mels * (settings.n_fft // 2 + 1), MAX_WEIGHTS),
    ):
        if size > most:
            raise ImageError(f"{size:,} {what} are too many; at most {most:,} are possible")
    return settings


def save_settings(settings: MelSettings, folder: str | Path) -> None:
    """Write the settings beside the images in `folder`."""
    with atomic_write(as_path(folder) / SETTINGS_FILE) as part:
        part.write_text(json.dumps(asdict(settings), indent=2) + "\n")


def settle_settings(settings: MelSettings, folder: str | Path) -> None:
    """Save the settings in a new folder of images, or raise `ImageError` if it has others."""
    earlier = load_settings(folder)
    if earlier is None:
        save_settings(settings, folder)
    else:
        settings.check_same(earlier, f"The folder of images {as_path(folder).name}")


def load_settings(folder: str | Path) -> MelSettings | None:
    """The settings saved in a folder of images, or None if there are none.

    Raises
    ------
    ImageError
        If their file is damaged.
    """
    file = as_path(folder) / SETTINGS_FILE
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
    """The settings saved beside an image's genre folder; the defaults if there are none.

    The image can be in folders of an artist and an album inside the genre's folder. Those of an
    image in a shard are saved beside the shard.

    Raises
    ------
    ImageError
        If the file of settings is damaged.
    """
    shard = shard_row(image)
    folders = as_path(image).parents[1:4] if shard is None else [as_path(shard[0]).parent]
    return next(filter(None, map(load_settings, folders)), MelSettings())


def settings_of(images: Iterable[str]) -> dict[str, MelSettings]:
    """The settings of many images, as `image_settings` finds them; each folder is read once."""
    found = {}
    in_folder = {}
    for image in images:
        folder = os.path.dirname(image)
        if folder not in in_folder:
            in_folder[folder] = image_settings(image)
        found[image] = in_folder[folder]
    return found


def check_image(path: str | Path, settings: MelSettings | None = None) -> None:
    """Raise `ImageError` unless the file is an image of its settings.

    Only the header of the file is read. The image must be 8-bit grey, `n_mels` high and `columns`
    wide.

    Parameters
    ----------
    settings
        Those that the image must have been made with. None: those that are saved beside it.
    """
    from PIL import Image

    saved, name = image_settings(path), printable(Path(path).name)
    if settings is not None:
        settings.check_same(saved, name)
    try:
        # Pillow warns of images that are very large; their size is checked below.
        whole = shard_row(path) is not None or is_url(path)
        file = io.BytesIO(read_image(path)) if whole else path
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=["PNG"]) as image:
            found = (image.mode, image.width, image.height)
    except Exception as error:  # Pillow raises errors of many kinds for a damaged file
        raise ImageError(f"{name}: not readable as an image. Make it again.") from error
    if found != ("L", saved.columns, saved.n_mels):
        raise ImageError(
            f"{name}: {found[1]} x {found[2]} pixels of mode {found[0]}, but its settings give "
            f"{saved.columns} x {saved.n_mels} of mode L (8-bit grey). It was made with other "
            "settings: make it again from its sound."
        )


def check_images(images: Iterable[str | Path], settings: MelSettings) -> None:
    """Raise `ImageError` unless all images have these settings.

    Of a shard only the first image is checked, since a shard is written as a whole.
    """
    checked = set()
    for image in images:
        shard = shard_row(image)
        if shard is None or shard[0] not in checked:
            check_image(image, settings)
        if shard is not None:
            checked.add(shard[0])
