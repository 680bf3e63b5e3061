"""A collection -> one PNG per track, in parallel; only missing or outdated images are made."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.audio import AudioError, audio_duration, load_audio
from ..data.mel_settings import (
    ImageError,
    MelSettings,
    image_settings,
    load_settings,
    save_settings,
    settings_suffix,
)
from ..files import atomic_write, locked, project_folder, sweep
from ..parallel import parallel_map
from ..text import names_below
from .melspectrogram import melspectrogram_image
from .skipped import report_skipped

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

RECORDS_FILE = "sources.json"
SECONDS_BETWEEN_RECORDS = 2  # a killed run repeats the images since the last record
MAX_NAME_BYTES = 251  # of an image's name without its ending


def images_folder(tracks: pd.DataFrame, settings: MelSettings = MelSettings()) -> Path:
    """The project's folder for the images of a collection.

    It is `data/images/<collection>` for the default settings. For others, the settings that differ
    are part of the name, as in `data/images/gtzan-hop512-mel96`.

    Parameters
    ----------
    tracks
        With `collection`.
    """
    name = f"{tracks['collection'].iloc[0]}{settings_suffix(settings)}"
    return project_folder() / "data" / "images" / name


def load_center(path: str | Path, settings: MelSettings = MelSettings()) -> np.ndarray:
    """Samples [shape=(n,)] of the middle of a recording, a little more than one image needs.

    A shorter recording is returned whole. Raises `AudioError` if it cannot be read.
    """
    # With a second more than needed, `fix_length` can choose, whatever the file's sample rate.
    spare = max(0.0, audio_duration(path) - settings.duration - 1)
    return load_audio(
        path, sample_rate=settings.sample_rate, offset=spare / 2, duration=settings.duration + 1
    )


def extract_melspectrograms(
    tracks: pd.DataFrame,
    folder: str | Path,
    *,
    settings: MelSettings = MelSettings(),
    progress: bool = True,
) -> pd.DataFrame:
    """Make one PNG per track, `<folder>/<genre>/…/<track>.png`; existing images are kept.

    A track that comes with an image of these settings keeps it. If its image has other settings, a
    new one is made from its sound. `sources.json` in the folder records the file that each image
    was made from, its size and its time; if one of these changes, the image is made again.

    The settings are saved in the folder. Later steps read them from there.

    Parameters
    ----------
    tracks
        With `track_id`, `genre`, `path` (missing if there is no sound), and possibly `image`.
    folder
        For instance `images_folder(tracks, settings)`.
    progress
        Show a progress bar.

    Returns
    -------
    pd.DataFrame
        The tracks that have an image, with its file in the column `image`. `attrs["skipped"]` is a
        list of (name, reason) of the others; one `MelgenreWarning` names them.

    Raises
    ------
    ImageError
        If the folder has images of other settings; if a track has an image of other settings and
        no sound; or if no track could be read.
    """
    # Imported here: prediction by ONNX Runtime needs no pandas.
    import pandas as pd

    folder = Path(folder).resolve()  # for workers, which may have another working directory
    folder.mkdir(parents=True, exist_ok=True)
    ready = _ready_images(tracks, settings)
    with locked(folder):
        earlier = load_settings(folder)
        if earlier is None:
            save_settings(settings, folder)
        else:
            settings.check_same(earlier, f"The folder of images {folder.name}")
        files = [
            str(_image_file(folder, genre, track))
            for genre, track in zip(tracks["genre"], tracks["track_id"], strict=True)
        ]
        images = ready.where(ready.notna(), pd.Series(files, index=tracks.index, dtype=object))
        made = tracks.assign(image=images)
        skipped = _make_missing(made[ready.isna()], folder, settings, progress)
    made = made[[Path(image).exists() for image in made["image"]]].reset_index(drop=True)
    if made.empty:
        reason = ": ".join(skipped[0]) if skipped else "there is no track."
        raise ImageError(f"No track could be turned into an image. The first: {reason}")
    report_skipped(made, skipped, len(tracks))
    return made


def _ready_images(tracks, settings):
    """The images of a table that have these settings [pd.Series]; missing for other tracks."""
    import pandas as pd

    images = tracks.get("image", pd.Series(None, index=tracks.index)).astype(object)
    found = {image: image_settings(image) for image in images.dropna()}
    other = images.map(lambda image: found.get(image, settings) != settings).astype(bool)
    silent = images[other & tracks["path"].isna()]
    if len(silent):
        try:
            settings.check_same(found[silent.iloc[0]], "the first of them")
        except ImageError as error:
            raise ImageError(
                f"{len(silent)} tracks have no sound to make new images from, and their images "
                f"have other settings: {error}"
            ) from None
    return images.mask(other, None)


def _image_file(folder, genre, track):
    """The file of a track's image; names that leave no room for `.png` are shortened."""
    parts = track.split("/")  # of several genres, none names the folder
    if isinstance(genre, str):
        parts = [genre, *track.removeprefix(f"{genre}/").split("/")]
    *parents, name = map(_shortened, parts)
    return Path(folder, *parents, f"{name}.png")


def _shortened(name):
    if len(os.fsencode(name)) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.md5(os.fsencode(name)).hexdigest()[:8]
    return f"{os.fsencode(name)[: MAX_NAME_BYTES - 9].decode('utf-8', 'ignore')}-{digest}"


def _make_missing(tracks, folder, settings, progress):
    """Make the images that are missing or whose source has changed; returns (name, reason) of
    those that failed."""
    records = _read_records(folder)
    earlier = records.copy()
    todo, keys, sources = [], [], []
    for path, image in zip(tracks["path"], map(Path, tracks["image"]), strict=True):
        source = _describe_source(path, folder)
        key = image.relative_to(folder).as_posix()
        if not image.exists() or (source is not None and source != records.get(key)):
            # Workers may have another working directory.
            sound = os.path.abspath(path) if isinstance(path, str) else None
            todo.append((sound, Path(os.path.abspath(image)), settings))
            keys.append(key)
            sources.append(source)
    for parent in {image.parent for _, image, _ in todo}:
        sweep(parent)
    done = parallel_map(_make_image, todo, desc="images", unit=" clips", progress=progress)
    reasons, written = [], time.monotonic()
    try:
        for key, source, reason in zip(keys, sources, done, strict=False):
            reasons.append(reason)
            records.pop(key, None)
            if reason is None:
                records[key] = source
            if time.monotonic() - written > SECONDS_BETWEEN_RECORDS:
                _write_records(folder, records)
                written = time.monotonic()
    finally:
        if records != earlier:  # a set of images may be read-only
            _write_records(folder, records)
    names = names_below([path or image for path, image, _ in todo])
    return [(name, reason) for name, reason in zip(names, reasons, strict=True) if reason]


def _describe_source(path, folder):
    """A recording's path relative to the folder of images, its size and time; None without one."""
    try:
        status = os.stat(path)
    except (OSError, TypeError, ValueError):  # a missing path is no string
        return None
    return [os.path.relpath(path, folder), status.st_size, status.st_mtime_ns]


def _read_records(folder):
    """The source of each image, by its path in the folder; empty if the file is damaged."""
    try:
        records = json.loads(Path(folder, RECORDS_FILE).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return records if isinstance(records, dict) else {}


def _write_records(folder, records):
    with atomic_write(Path(folder, RECORDS_FILE)) as part:
        part.write_text(json.dumps(dict(sorted(records.items())), indent=0) + "\n")


def _make_image(path, target, settings):
    """Write one image; returns None, or the reason why it could not be made."""
    from PIL import Image

    if path is None:
        return "neither an image nor sound."
    try:
        image = melspectrogram_image(load_center(path, settings), settings)
    except Exception as error:  # decoders fail in many ways, and one file must not end the run
        with suppress(OSError):
            target.unlink(missing_ok=True)  # an earlier image, whose sound is gone
        if isinstance(error, AudioError):
            return error.reason
        return f"cannot be turned into an image ({type(error).__name__}). Convert it to wav."
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as part:
            # Half the time of the default strategy of compression, for files of the same size.
            Image.fromarray(image).save(part, format="PNG", compress_type=zlib.Z_RLE)
    except OSError as error:
        # A full disk ends the run: the next images could not be written either.
        raise ImageError(
            f"{target.name} cannot be written ({error.strerror}). Make room or choose another "
            "folder, and run this again: it resumes."
        ) from error
    return None
