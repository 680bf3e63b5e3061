"""A collection -> one PNG per track, in parallel; only missing or outdated images are made."""

from __future__ import annotations

import hashlib
import io
import os
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.audio import AudioError, audio_duration, load_audio
from ..data.image_files import image_file
from ..data.mel_settings import (
    ImageError,
    MelSettings,
    settings_of,
    settings_suffix,
    settle_settings,
)
from ..data.recording import audio_errors, display_name, fetched
from ..files import atomic_write, locked, project_folder, sweep
from ..parallel import parallel_map
from ..paths import StoreError, absolute, as_path, is_url, stamps
from ..shard import Shard
from ..text import names_below
from .melspectrogram import melspectrogram_image
from .skipped import report_skipped
from .sources import RECORDS_FILE, read_records, sources_of, write_records

if TYPE_CHECKING:
    import pandas as pd
    from upath import UPath

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
    name = display_name(path)
    with audio_errors(name), fetched(path, name) as file:
        # With a second more than needed, `fix_length` can choose, whatever the file's sample rate.
        spare = max(0.0, audio_duration(file) - settings.duration - 1)
        return load_audio(
            file, sample_rate=settings.sample_rate, offset=spare / 2, duration=settings.duration + 1
        )


def extract_melspectrograms(
    tracks: pd.DataFrame,
    folder: str | Path | UPath,
    *,
    settings: MelSettings = MelSettings(),
    shard: Shard | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Make one PNG per track, `<folder>/<genre>/…/<track>.png`; existing images are kept.

    Images are made in parallel, on all cores or on the cluster of `joblib.parallel_config`.

    A track that comes with an image of these settings keeps it. If its image has other settings, a
    new one is made from its sound. `sources.json` in the folder records the file that each image
    was made from, its size and its time; if one of these changes, the image is made again.

    The settings are saved in the folder. Later steps read them from there.

    Parameters
    ----------
    tracks
        With `track_id`, `genre`, `path` (missing if there is no sound), and possibly `image`.
    folder
        For instance `images_folder(tracks, settings)`, or a URL such as `s3://bucket/images`.
    shard
        Only this share of the tracks.
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
    if not is_url(folder):
        folder = Path(folder).resolve()  # for workers, which may have another working directory
        folder.mkdir(parents=True, exist_ok=True)
    folder = as_path(folder)
    if shard is not None:
        tracks = tracks.iloc[shard.number - 1 :: shard.count]
    tracks = tracks.reset_index(drop=True)
    images = _ready_images(tracks, settings)
    ready = images.dropna()
    missing = tracks.index.difference(ready.index)
    records_file = folder / RECORDS_FILE if shard is None else shard.file(folder / RECORDS_FILE)
    with locked(records_file):
        settle_settings(settings, folder)
        images[missing] = list(_image_files(tracks.loc[missing], folder))
        made = tracks.assign(image=images)
        failed, skipped = _make_missing(made.loc[missing], records_file, settings, progress)
    exist = [stamp != "" for stamp in stamps(list(map(image_file, ready)))]
    made = made.drop([*missing[failed], *ready.index[np.logical_not(exist)]])
    if made.empty:
        reason = ": ".join(skipped[0]) if skipped else "there is no track."
        raise ImageError(f"No track could be turned into an image. The first: {reason}")
    made = made.reset_index(drop=True)
    report_skipped(made, skipped, len(tracks))
    return made


def _ready_images(tracks, settings):
    """The images of a table that have these settings [pd.Series]; missing for other tracks."""
    import pandas as pd

    images = tracks.get("image", pd.Series(None, index=tracks.index)).astype(object)
    found = settings_of(images.dropna())
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


def _image_files(tracks, folder):
    """The files of the tracks' images; names that leave no room for `.png` are shortened."""
    start = _start_of(folder)
    for genre, track in zip(tracks["genre"], tracks["track_id"], strict=True):
        parts = track.split("/")  # of several genres, none names the folder
        if isinstance(genre, str):  # FMA's "Old-Time / Historic" names one folder
            parts = [genre.replace("/", "-"), *track.removeprefix(f"{genre}/").split("/")]
        yield f"{start}{'/'.join(map(_shortened, parts))}.png"


def _start_of(folder):
    """The text that the addresses of all files in a folder begin with."""
    return str(folder).rstrip("/") + "/"


def _shortened(name):
    if len(os.fsencode(name)) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.md5(os.fsencode(name)).hexdigest()[:8]
    return f"{os.fsencode(name)[: MAX_NAME_BYTES - 9].decode('utf-8', 'ignore')}-{digest}"


def _make_missing(tracks, records_file, settings, progress):
    """Make the images that are missing or whose source has changed; returns the rows of those that
    failed, and their names and reasons."""
    folder = records_file.parent
    records = read_records(records_file)
    start = len(_start_of(folder))
    paths, images = tracks["path"].tolist(), tracks["image"].tolist()
    todo, rows, sources = [], [], []
    found = zip(paths, images, stamps(images), sources_of(paths, folder), strict=True)
    for row, (path, image, stamp, source) in enumerate(found):
        if not stamp or (source is not None and source != records.get(image[start:])):
            todo.append((absolute(path) if isinstance(path, str) else None, image, settings))
            rows.append(row)
            sources.append(source)
    for parent in {os.path.dirname(image) for _, image, _ in todo}:
        sweep(parent)
    done = parallel_map(
        _make_image, todo, total=len(todo), desc="images", unit=" clips", progress=progress
    )
    reasons, due = {}, 0.0
    try:
        for number, reason in done:
            key = todo[number][1][start:]
            records.pop(key, None)
            if reason is None:
                records[key] = sources[number]
            else:
                reasons[number] = reason
            if time.monotonic() > due:
                due = write_records(records_file, records)
    finally:
        if todo:  # a set of images may be read-only
            write_records(records_file, records)
    names = names_below([path or image for path, image, _ in todo])
    failed = sorted(reasons)
    return [rows[one] for one in failed], [(names[one], reasons[one]) for one in failed]


def _make_image(path, target, settings):
    """Write one image; returns None, or the reason why it could not be made."""
    png, reason = make_png(path, settings)
    if reason is not None:
        if path is not None:
            with suppress(OSError):
                as_path(target).unlink(missing_ok=True)  # an earlier image, whose sound is gone
        return reason
    try:
        if not is_url(target):
            Path(target).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as part:
            part.write_bytes(png)
    except StoreError:
        raise
    except OSError as error:
        # A full disk ends the run: the next images could not be written either.
        raise ImageError(
            f"{Path(target).name} cannot be written ({error.strerror}). Make room or choose "
            "another folder, and run this again: it resumes."
        ) from error
    return None


def make_png(path: str | Path | None, settings: MelSettings) -> tuple[bytes, str | None]:
    """The mel-spectrogram of a recording as a PNG.

    Returns
    -------
    png : bytes
        Empty if it cannot be made.
    reason : str or None
        Why it cannot be made.
    """
    from PIL import Image

    if path is None:
        return b"", "neither an image nor sound."
    try:
        image = melspectrogram_image(load_center(path, settings), settings)
    except AudioError as error:
        return b"", error.reason
    except StoreError:
        raise
    except Exception as error:  # decoders fail in many ways, and one file must not end the run
        kind = type(error).__name__
        return b"", f"cannot be turned into an image ({kind}). Convert it to wav."
    png = io.BytesIO()
    # Half the time of the default strategy of compression, for files of the same size.
    Image.fromarray(image).save(png, format="PNG", compress_type=zlib.Z_RLE)
    return png.getvalue(), None
