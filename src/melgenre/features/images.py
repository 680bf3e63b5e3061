"""A collection -> one PNG per track, in parallel; only missing or outdated images are made."""

import hashlib
import json
import os
import time
import zlib
from contextlib import suppress
from pathlib import Path

from ..data.audio import AudioError, audio_duration, load_audio
from ..data.mel_settings import ImageError, MelSettings, load_settings, save_settings
from ..files import atomic_write, locked, project_folder, sweep
from ..parallel import parallel_map
from ..text import names_below
from .melspectrogram import melspectrogram_image

RECORDS_FILE = "sources.json"
SECONDS_BETWEEN_RECORDS = 2  # a killed run makes again what it made since
LONGEST_NAME = 251  # of an image without its ending, in bytes


def images_folder(tracks, settings=MelSettings()):
    """The folder for the images of a collection."""
    return project_folder() / "data" / "images" / tracks["collection"].iloc[0]


def load_center(path, settings=MelSettings()):
    """Samples of a recording's middle, as long as one image; shorter if the recording is."""
    # A second more than needed lets `fix_length` choose, whatever the file's own rate.
    spare = max(0.0, audio_duration(path) - settings.duration - 1)
    return load_audio(
        path, sample_rate=settings.sample_rate, offset=spare / 2, duration=settings.duration + 1
    )


def extract_melspectrograms(tracks, folder, *, settings=MelSettings(), progress=True):
    """One PNG per track, in `<folder>/<genre>/…/<track>.png`; a second call makes what is missing.

    A track that has an image made earlier keeps it. `sources.json` in the folder records the file
    that each image was made from, its size and its time: when one of these differs, the image
    is made again. What cannot be read is skipped, counted, and listed at the end.

    Parameters
    ----------
    tracks : pd.DataFrame
        With `track_id`, `genre`, `path` (missing where there is no sound), and possibly `image`.
    folder : str or Path
    settings : MelSettings
    progress : bool
        Show a progress bar.

    Returns
    -------
    pd.DataFrame
        The tracks that have an image, with its file in the column `image`.

    Raises
    ------
    ImageError
        If the folder holds images of other settings, or no track could be read.
    """
    # Here alone: a model answers where only ONNX Runtime and librosa are installed.
    import pandas as pd

    folder = Path(folder).resolve()  # for workers, which may have another working directory
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        earlier = load_settings(folder)
        if earlier is None:
            save_settings(settings, folder)
        else:
            settings.check_same(earlier, f"The folder of images {folder.name}")
        images = tracks.get("image", pd.Series(None, index=tracks.index)).astype(object)
        ours = [
            str(_image_file(folder, genre, track))
            for genre, track in zip(tracks["genre"], tracks["track_id"], strict=True)
        ]
        tracks = tracks.assign(image=images.where(images.notna(), ours))
        broken = _make_missing(tracks[images.isna()], folder, settings, progress)
    if broken:
        print(f"{len(broken)} of {len(tracks)} tracks skipped:", *broken, sep="\n  ")
    tracks = tracks[[Path(image).exists() for image in tracks["image"]]]
    if tracks.empty:
        raise ImageError("No track could be turned into an image; see the reasons above.")
    return tracks.reset_index(drop=True)


def _image_file(folder, genre, track):
    """Where a track's image lies; names that leave no room for `.png` are shortened."""
    *parents, name = map(_shortened, [genre, *track.removeprefix(f"{genre}/").split("/")])
    return Path(folder, *parents, f"{name}.png")


def _shortened(name):
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    mark = hashlib.md5(os.fsencode(name)).hexdigest()[:8]
    return f"{os.fsencode(name)[: LONGEST_NAME - 9].decode('utf-8', 'ignore')}-{mark}"


def _make_missing(tracks, folder, settings, progress):
    """Make the images that are missing or whose source has changed; returns what failed."""
    records = _read_records(folder)
    earlier = records.copy()
    todo, sources = [], []
    for path, image in zip(tracks["path"], map(Path, tracks["image"]), strict=True):
        source = _describe_source(path, folder)
        recorded = records.get(image.relative_to(folder).as_posix())
        if not image.exists() or (source is not None and source != recorded):
            todo.append((os.path.abspath(path) if isinstance(path, str) else None, image, settings))
            sources.append(source)
    for parent in {image.parent for _, image, _ in todo}:
        sweep(parent)
    done = parallel_map(_draw, todo, desc="images", unit=" clips", progress=progress)
    reasons, written = [], time.monotonic()
    try:
        for (_, image, _), source, reason in zip(todo, sources, done, strict=False):
            reasons.append(reason)
            records.pop(image.relative_to(folder).as_posix(), None)
            if reason is None:
                records[image.relative_to(folder).as_posix()] = source
            if time.monotonic() - written > SECONDS_BETWEEN_RECORDS:
                _write_records(folder, records)
                written = time.monotonic()
    finally:
        if records != earlier:  # a set of images may be read-only
            _write_records(folder, records)
    named = names_below([path or image for path, image, _ in todo])
    return [f"{name}: {reason}" for name, reason in zip(named, reasons, strict=True) if reason]


def _describe_source(path, folder):
    """Path below or beside the folder of images, size and time of a sound; None without one."""
    try:
        status = os.stat(path)
    except (OSError, TypeError, ValueError):  # a missing path is no string
        return None
    return [os.path.relpath(path, folder), status.st_size, status.st_mtime_ns]


def _read_records(folder):
    """What each image was made from, by its path below the folder; empty if it is damaged."""
    try:
        records = json.loads(Path(folder, RECORDS_FILE).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return records if isinstance(records, dict) else {}


def _write_records(folder, records):
    with atomic_write(Path(folder, RECORDS_FILE)) as part:
        part.write_text(json.dumps(dict(sorted(records.items())), indent=0) + "\n")


def _draw(path, target, settings):
    """Write one image; returns None, or the reason why there is none."""
    from PIL import Image

    if path is None:
        return "neither an image nor sound."
    try:
        image = melspectrogram_image(load_center(path, settings), settings)
    except Exception as error:  # one recording never ends a folder
        with suppress(OSError):
            target.unlink(missing_ok=True)  # an image of sound that is gone shows nothing any more
        if isinstance(error, AudioError):
            return error.reason
        return f"cannot be turned into an image ({type(error).__name__}). Convert it to wav."
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as part:
            # Half the time of the usual search for repetitions, of which such an image has none.
            Image.fromarray(image).save(part, format="PNG", compress_type=zlib.Z_RLE)
    except OSError as error:
        # A full disk ends the run: what comes next could not be written either.
        raise ImageError(
            f"{target.name} cannot be written ({error.strerror}). Make room or choose another "
            "folder, and run this again: it resumes."
        ) from error
    return None
