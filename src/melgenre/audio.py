"""A file of sound -> samples: mono, float32, one sample rate.

What cannot be read is told in a sentence, never guessed: a file that is empty, is no sound, or is
shorter than its own header promises raises `AudioError`.
"""

import io
import struct
from contextlib import contextmanager
from pathlib import Path

import librosa
import numpy as np
import soundfile

SAMPLE_RATE = 22050
"""Sample rate of GTZAN, and so of everything here, in Hz."""

AUDIO_SUFFIXES = frozenset(
    (".aif", ".aiff", ".au", ".flac", ".m4a", ".mp3", ".mp4")
    + (".oga", ".ogg", ".opus", ".w64", ".wav", ".wma")
)
"""File name endings taken for sound. libsndfile reads most of them; the rest get a sentence."""

SHORTEST_SECONDS = 1.0


class AudioError(ValueError):
    """A recording that cannot be used; the message names the file, the cause and the way out."""


def load_audio(path, *, sample_rate=SAMPLE_RATE, offset=0.0, duration=None):
    """Read a recording as mono samples at one rate.

    Parameters
    ----------
    path : str or Path
        A file that libsndfile reads: wav, flac, ogg, opus, mp3, au, aiff, …
    sample_rate : int
        Rate of the samples returned, in Hz; the file's own rate may be any.
    offset, duration : float
        Where to start and how much to read, in seconds; `duration=None` reads to the end.

    Returns
    -------
    y : np.ndarray [shape=(n,), dtype=float32]
        Samples within about [-1, 1]; several channels are averaged.

    Raises
    ------
    AudioError
        If the file is missing, empty, no sound, truncated, shorter than a second, or holds
        samples that are no numbers.
    """
    path = Path(path)
    with _opened(path) as file:
        rate = file.samplerate
        file.seek(min(int(offset * rate), file.frames))
        wanted = file.frames - file.tell()
        if duration is not None:
            wanted = min(wanted, round(duration * rate))
        y = file.read(wanted, dtype="float32", always_2d=True)
    # Compressed formats state their length to within a frame or two; a second is no such slip.
    if len(y) < wanted - rate:
        raise AudioError(
            f"{path.name}: truncated: {wanted / rate:.1f} s announced, {len(y) / rate:.1f} s there."
            " Fetch the file again, or leave it out."
        )
    return _checked(y.mean(axis=1), rate, sample_rate, path.name)


def audio_duration(path):
    """Length of a recording in seconds, from its header alone; `AudioError` as `load_audio`."""
    with _opened(Path(path)) as file:
        return file.frames / file.samplerate


def play(path, *, start=0.0, seconds=5.0):
    """A player for a notebook: a few seconds of a recording, as a small mp3 inside the page.

    Parameters
    ----------
    path : str or Path
    start, seconds : float
        Where to start and how much to take, in seconds.

    Returns
    -------
    IPython.display.Audio
    """
    from IPython.display import Audio  # only notebooks need it

    y = load_audio(path, offset=start, duration=seconds)
    player = Audio(data=encode_mp3(y, SAMPLE_RATE))
    player.mimetype = "audio/mpeg"
    return player


def encode_mp3(y, rate):
    """Samples [shape=(n,)] at `rate`, in Hz -> the bytes of a small mp3, some 6 kB a second."""
    sound = io.BytesIO()
    soundfile.write(sound, y, rate, format="MP3")
    return sound.getvalue()


@contextmanager
def _opened(path):
    """The `SoundFile` of `path`; whatever libsndfile dislikes about it becomes an `AudioError`."""
    _check_length_on_disk(path)
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except (soundfile.LibsndfileError, MemoryError) as error:
        raise AudioError(
            f"{path.name}: not readable as sound ({_cause(error)}). Convert it to wav or flac, "
            "or leave it out."
        ) from error


def _checked(y, rate, sample_rate, name):
    """Resampled samples of `name`, or the sentence that says what is wrong with them."""
    if not np.isfinite(y).all():
        raise AudioError(f"{name}: holds samples that are no numbers (NaN or infinite).")
    if len(y) < SHORTEST_SECONDS * rate:
        raise AudioError(
            f"{name}: {len(y) / rate:.2f} s long; a genre needs at least {SHORTEST_SECONDS:.0f} s."
        )
    if rate != sample_rate:
        y = librosa.resample(y, orig_sr=rate, target_sr=sample_rate)
    return np.ascontiguousarray(y, dtype=np.float32)


def _check_length_on_disk(path):
    """Refuse a missing or empty file, and a wav or au that is shorter than its header says.

    libsndfile quietly returns what is there of a truncated wav; a clip that is half gone must not
    pass for a whole one.
    """
    if not path.is_file():
        raise AudioError(f"{path.name}: no such file. Check the path.")
    size = path.stat().st_size
    if size == 0:
        raise AudioError(f"{path.name}: empty file (0 bytes). Fetch it again, or leave it out.")
    with path.open("rb") as file:
        head = file.read(16)
    announced = 0
    if len(head) == 16 and head[:4] == b"RIFF":
        announced = 8 + struct.unpack("<I", head[4:8])[0]
    elif len(head) == 16 and head[:4] == b".snd":
        announced = sum(struct.unpack(">II", head[4:12]))
    # Streams write 0 or 2**32 - 1 where the length is not known beforehand. One byte of
    # padding may be missing at the end of a wav of odd length.
    if size + 1 < announced < 2**32 - 1:
        raise AudioError(
            f"{path.name}: truncated: its header announces {announced:,} bytes, the file has "
            f"{size:,}. Fetch it again, or leave it out."
        )


def _cause(error):
    """libsndfile's own words for `error`, without the path that it puts in front of them."""
    return str(getattr(error, "error_string", error)).rstrip(". ").lower() or type(error).__name__
