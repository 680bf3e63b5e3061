"""A file of sound -> samples: mono, float32, one sample rate.

What cannot be read is told in a sentence, never guessed: a file that is empty, is no sound, or is
shorter than its own header promises raises `AudioError`.
"""

import io
import struct
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 22050
"""Sample rate of GTZAN, and so of everything here, in Hz."""

AUDIO_SUFFIXES = frozenset(
    (".aif", ".aiff", ".au", ".flac", ".m4a", ".mp3", ".mp4")
    + (".oga", ".ogg", ".opus", ".w64", ".wav", ".wma")
)
"""File name endings taken for sound. libsndfile reads most of them; the rest get a sentence."""

SHORTEST_SECONDS = 1.0
BLOCK_SECONDS = 10  # read at a time of a long recording


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
        if file.subtype == "PCM_16":  # libsndfile takes five times as long to make floats of it
            y = file.read(wanted, dtype="int16") * np.float32(2**-15)
        else:
            y = file.read(wanted, dtype="float32")
    _check_length(path.name, wanted, len(y), rate)
    return _checked(_mono(y), rate, sample_rate, path.name)


def audio_duration(path):
    """Length of a recording in seconds, from its header alone; `AudioError` as `load_audio`."""
    with _opened(Path(path)) as file:
        return file.frames / file.samplerate


def play(recording, *, start=0.0, seconds=5.0):
    """A player for a notebook: a few seconds of a recording, as a small mp3 inside the page.

    Parameters
    ----------
    recording : str, Path, or tuple of samples [shape=(n,)] and their rate in Hz
    start, seconds : float
        Where to start and how much to take, in seconds; earlier where the recording ends before.

    Returns
    -------
    IPython.display.Audio
    """
    from IPython.display import Audio  # only notebooks need it

    if isinstance(recording, tuple):
        y, rate = recording
        start = max(0, min(start, len(y) / rate - seconds))
        y = y[round(start * rate) : round((start + seconds) * rate)]
    else:
        start = max(0, min(start, audio_duration(recording) - seconds))
        y, rate = load_audio(recording, offset=start, duration=seconds), SAMPLE_RATE
    player = Audio(data=encode_mp3(y, rate))
    player.mimetype = "audio/mpeg"
    return player


def encode_mp3(y, rate):
    """Samples [shape=(n,)] at `rate`, in Hz -> the bytes of a small mp3, some 6 kB a second."""
    sound = io.BytesIO()
    soundfile.write(sound, y, rate, format="MP3")
    return sound.getvalue()


def cut_windows(recording, seconds, *, sample_rate=SAMPLE_RATE):
    """A recording of any length, window by window, so that memory stays flat.

    One that is less than a second longer than a window is a window by itself. The last window of
    a longer one ends where the recording ends, so it may overlap the one before.

    Parameters
    ----------
    recording : str, Path, bytes, binary file, or tuple
        A tuple is samples [shape=(n,) or (n, channels)] and their rate in Hz.
    seconds : float
        Length of a window.
    sample_rate : int
        Of the windows, in Hz.

    Yields
    ------
    start, end : float
        In seconds.
    y : np.ndarray [shape=(m,), dtype=float32]
        Mono.

    Raises
    ------
    AudioError
        As `load_audio`; of a truncated recording after its last whole window.
    """
    n = round(seconds * sample_rate)
    kept, before, start = np.empty(0, np.float32), None, 0
    for block in _blocks(recording, sample_rate):
        kept = np.concatenate([kept, block])
        while len(kept) > n and (start or len(kept) >= n + sample_rate):
            before, kept = kept[:n], kept[n:]
            yield start / sample_rate, (start + n) / sample_rate, before
            start += n
    if before is not None:
        end = start + len(kept)
        kept = np.concatenate([before, kept])[-n:]
        yield (end - n) / sample_rate, end / sample_rate, kept
        return
    name = _name(recording)
    if len(kept) < SHORTEST_SECONDS * sample_rate:
        raise AudioError(_too_short(name, len(kept) / sample_rate))
    yield 0.0, len(kept) / sample_rate, kept


def _blocks(recording, sample_rate):
    """A recording's samples, mono and at one rate, ten seconds at a time."""
    name = _name(recording)
    resample, rate_before = None, None
    for y, rate in _raw_blocks(recording, name):
        y = _mono(y)
        if not np.isfinite(y).all():
            raise AudioError(f"{name}: holds samples that are no numbers (NaN or infinite).")
        if rate != sample_rate:
            if rate != rate_before:
                resample, rate_before = soxr.ResampleStream(rate, sample_rate, 1), rate
            y = resample.resample_chunk(y)
        yield y
    if resample is not None:
        yield resample.resample_chunk(np.empty(0, np.float32), last=True)


def _raw_blocks(recording, name):
    """Blocks of samples as they are in the recording, each with its rate in Hz."""
    if isinstance(recording, tuple):
        y, rate = np.asarray(recording[0]), recording[1]
        y = y / -float(np.iinfo(y.dtype).min) if np.issubdtype(y.dtype, np.signedinteger) else y
        for start in range(0, len(y), BLOCK_SECONDS * rate):
            yield y[start : start + BLOCK_SECONDS * rate], rate
        return
    there = 0
    try:
        with _opened(recording) as file:
            rate = file.samplerate
            for block in file.blocks(BLOCK_SECONDS * rate, dtype="float32", always_2d=True):
                there += len(block)
                yield block, rate
            _check_length(name, file.frames, there, rate)
    except UnknownFormat as error:
        if there:  # it was known well enough to begin
            raise
        try:
            import av
        except ImportError:
            raise AudioError(f"{error} Or install PyAV, which reads more: pip install av") from None
        yield from _blocks_by_pyav(av, recording, name)


def _blocks_by_pyav(av, recording, name):
    """What libsndfile does not read (m4a, wma, the sound of videos), by way of ffmpeg."""
    opened = io.BytesIO(recording) if isinstance(recording, bytes) else recording
    if hasattr(opened, "seek"):
        opened.seek(0)
    try:
        with av.open(opened if hasattr(opened, "read") else str(opened)) as container:
            if not container.streams.audio:
                raise AudioError(f"{name}: there is no sound in it.")
            stream, there = container.streams.audio[0], 0
            rate = stream.codec_context.sample_rate
            mono = av.AudioResampler(format="flt", layout="mono", rate=rate)
            for frame in container.decode(stream):
                for block in mono.resample(frame):
                    there += block.samples
                    yield block.to_ndarray()[0], rate
            # A bare stream of AAC has no header: its length is ffmpeg's guess.
            if stream.duration and container.format.name != "aac":
                _check_length(name, float(stream.duration * stream.time_base) * rate, there, rate)
    except av.FFmpegError as error:
        raise AudioError(
            f"{name}: not readable as sound ({error.strerror}). Convert it to wav or flac, or "
            "leave it out."
        ) from error


def _name(recording):
    """What a recording is called in a sentence: a file's name without its folder."""
    if isinstance(recording, (str, Path)):
        return Path(recording).name
    return Path(str(getattr(recording, "name", "the recording"))).name


def _too_short(name, seconds):
    return f"{name}: {seconds:.2f} s long; a genre needs at least {SHORTEST_SECONDS:.0f} s."


def _check_length(name, announced, there, rate):
    """Compressed formats state their length to within a frame or two; a second is no such slip."""
    if there < announced - rate:
        raise AudioError(
            f"{name}: truncated: {announced / rate:.1f} s announced, {there / rate:.1f} s there."
            " Fetch the file again, or leave it out."
        )


class UnknownFormat(AudioError):
    """A file that libsndfile does not read; another decoder may."""


@contextmanager
def _opened(recording):
    """The `SoundFile` of a path, bytes or a file; what libsndfile dislikes is an `AudioError`."""
    name = _name(recording)
    if isinstance(recording, (str, Path)):
        _check_path(Path(recording))
    file = io.BytesIO(recording) if isinstance(recording, bytes) else recording
    try:
        with soundfile.SoundFile(file) as opened:
            yield opened
    except (soundfile.LibsndfileError, MemoryError) as error:
        raise UnknownFormat(
            f"{name}: not readable as sound ({_cause(error)}). Convert it to wav or flac, "
            "or leave it out."
        ) from error


def _checked(y, rate, sample_rate, name):
    """Resampled samples of `name`, or the sentence that says what is wrong with them."""
    if not np.isfinite(y).all():
        raise AudioError(f"{name}: holds samples that are no numbers (NaN or infinite).")
    if len(y) < SHORTEST_SECONDS * rate:
        raise AudioError(_too_short(name, len(y) / rate))
    if rate != sample_rate:
        y = soxr.resample(y, rate, sample_rate)
    return y


def _mono(y):
    """Samples [shape=(n,) or (n, channels)] -> [shape=(n,), dtype=float32]."""
    return y.mean(axis=1, dtype=np.float32) if y.ndim > 1 else np.asarray(y, np.float32)


def _check_path(path):
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
