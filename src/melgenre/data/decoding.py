"""A recording -> blocks of samples: by libsndfile, or by PyAV what libsndfile does not read."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
import soundfile

from .containers import checked_head, is_mp3, mp3_frames, opened, unreadable, with_stated_length
from .pyav import decode_by_pyav, duration_by_pyav, import_av
from .recording import (
    Recording,
    UnreadableError,
    as_floats,
    audio_errors,
    check_bounds,
    check_complete,
    damaged,
    fetched,
)

SOUNDFILE_HEADS = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b".snd", b"FORM", b"caff")
ENDLESS = 2**62  # libsndfile gives a stream of unknown length more frames than that


def decode(
    recording: Recording,
    name: str,
    seconds: int,
    offset: float = 0.0,
    duration: float | None = None,
) -> Iterator[tuple[np.ndarray, int]]:
    """Blocks of so many seconds, as they are in the recording, each with its sample rate in Hz.

    Yields samples [shape=(n,) or (n, channels)], as floats within [-1, 1].
    """
    with audio_errors(name), fetched(recording, name) as recording:
        try:
            yield from _decode_by_soundfile(recording, name, seconds, offset, duration)
        except UnreadableError as error:  # only raised before the first block
            yield from decode_by_pyav(recording, name, seconds, offset, duration, error)


def duration_of(recording: Recording, name: str) -> float:
    """Length of a recording in seconds, without decoding it."""
    with audio_errors(name), fetched(recording, name) as recording:
        try:
            with _soundfile(recording, name) as file:
                return file.frames / file.samplerate
        except UnreadableError as error:
            return duration_by_pyav(recording, name, error)


def _decode_by_soundfile(
    recording: Recording, name: str, seconds: int, offset: float, duration: float | None
) -> Iterator[tuple[np.ndarray, int]]:
    with _soundfile(recording, name) as file:
        quiet = _silenced if file.format == "MP3" else nullcontext
        rate, start, found = file.samplerate, 0, 0
        # NumPy converts 16 bits to floats five times as fast as libsndfile.
        dtype = "int16" if file.subtype == "PCM_16" else "float32"
        try:
            with quiet():
                start = file.seek(min(int(offset * rate), file.frames))
            wanted = file.frames - start
            if duration is not None:
                wanted = min(wanted, round(duration * rate))
            # `SoundFile.blocks` would pad a file that ends early with the content of memory.
            while found < wanted:
                with quiet():
                    block = file.read(min(seconds * rate, wanted - found), dtype=dtype)
                if len(block) == 0:
                    break
                found += len(block)
                yield as_floats(block), rate
        except Exception as error:  # see `audio_errors`
            raise damaged(max(start + found, file.tell()) / rate, error, name) from error
        if found < wanted:
            check_complete(file.frames / rate, (start + found) / rate, name)


@contextmanager
def _soundfile(recording: Recording, name: str) -> Iterator[soundfile.SoundFile]:
    """The `SoundFile` of a recording; `UnreadableError` if PyAV is to read it."""
    head = checked_head(recording, name)
    # libsndfile searches any other file for MPEG sound, guesses its length if none is stated, and
    # stops at some damaged bytes.
    if head[:4] not in SOUNDFILE_HEADS and import_av():
        raise UnreadableError("not readable as sound.", name)
    if is_mp3(head) and not mp3_frames(recording):
        recording = with_stated_length(recording) or recording
    path = isinstance(recording, (str, Path))
    with nullcontext(recording) if path else opened(recording) as file:
        try:
            with _silenced():
                sound = soundfile.SoundFile(file)
        except Exception as error:  # see `audio_errors`
            raise unreadable(head, error, name) from error
        with sound:
            check_bounds(sound.samplerate, sound.channels, name)
            guessed = sound.format == "MP3" and not mp3_frames(recording)
            if guessed or sound.frames > ENDLESS:
                raise UnreadableError(
                    "it states no length. Convert it to wav or flac, or leave it out.", name
                )
            yield sound


_silence = threading.Lock()
_silenced_by, _stderr = 0, None


@contextmanager
def _silenced() -> Iterator[None]:
    """Send the standard error of the process nowhere while any of its threads is in the block.

    libmpg123, within libsndfile, writes notes there that name no file, and libsndfile has no
    option against them.
    """
    global _silenced_by, _stderr
    with _silence:
        if _silenced_by == 0:
            _stderr = None
            with suppress(OSError):  # of a process without a standard error
                _stderr = os.dup(2)
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), 2)
        _silenced_by += 1
    try:
        yield
    finally:
        with _silence:
            _silenced_by -= 1
            if _silenced_by == 0 and _stderr is not None:
                os.dup2(_stderr, 2)
                os.close(_stderr)
