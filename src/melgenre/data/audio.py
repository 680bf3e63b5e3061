"""A file of sound -> samples: mono, float32, one sample rate.

There is one reader, for training and for prediction. libsndfile reads wav, flac, ogg, opus, au and
aiff; PyAV reads mp3, m4a, aac, wma and the sound of videos; without PyAV, libsndfile reads mp3 too.
A file that is empty, holds no sound, or is shorter than its own header announces raises
`AudioError`.
"""

import io
import os
import re
import struct
import threading
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..errors import MelgenreError
from ..text import printable

SAMPLE_RATE = 22050
"""Sample rate of GTZAN, and so of everything here, in Hz."""

AUDIO_SUFFIXES = frozenset(
    (".aac", ".aif", ".aiff", ".au", ".flac", ".m4a", ".m4b", ".mkv", ".mp3", ".mp4")
    + (".oga", ".ogg", ".opus", ".w64", ".wav", ".webm", ".wma")
)
"""File name endings that count as sound when a folder is searched."""

SHORTEST_SECONDS = 1.0
BLOCK_SECONDS = 10  # read at a time where memory is to stay flat
HEAD_BYTES = 4096  # of a file, to see what it is
CONTAINERS = "aac,asf,avi,flac,matroska,mov,mp3,mpeg,mpegts,ogg,wav"  # that PyAV may open
MOST_CHANNELS = 8  # PyAV reads memory that is not its own of a (damaged) frame that has more
LOWEST_RATE, HIGHEST_RATE = 1000, 768_000  # in Hz; a header may announce anything
ENDLESS = 2**62  # libsndfile gives a stream of unknown length more frames than that
LONGEST_OGG_PAGE = 27 + 255 + 255 * 255
MP3_HEAD = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]")  # of a layer III frame
MPEG1_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # of layer III
MPEG2_KBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
SOUNDFILE_HEADS = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b".snd", b"FORM", b"caff")


class AudioError(MelgenreError, ValueError):
    """A recording that cannot be used.

    Attributes
    ----------
    reason : str
        The cause and the way out.
    name : str
        The file: its path as it was given, of an absolute path the last folder and the file.
    """

    def __init__(self, reason, name=""):
        super().__init__(f"{name}: {reason}" if name else reason)
        self.reason, self.name = reason, name


class _UnreadableError(AudioError):
    """libsndfile does not read this file; PyAV may."""


def load_audio(path, *, sample_rate=SAMPLE_RATE, offset=0.0, duration=None):
    """Read a recording as mono samples at one rate.

    Parameters
    ----------
    path : str or Path
        A file that libsndfile reads (wav, flac, ogg, opus, au, aiff, mp3) or, where it is
        installed, PyAV (m4a, aac, wma, the sound of videos).
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
        If the file is missing, empty, no sound, truncated, damaged, shorter than a second, or
        holds samples that are no numbers.
    """
    # A clip is one block: to join blocks takes longer than to read them.
    blocks = list(_blocks(path, sample_rate, 60, offset, duration)) or [np.empty(0, np.float32)]
    y = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    _check_long_enough(len(y) / sample_rate, _name(path))
    return y


def audio_duration(path):
    """Length of a recording in seconds, without decoding it; `AudioError` as `load_audio`."""
    name = _name(path)
    with _audio_errors(name):
        try:
            with _soundfile(path, name) as file:
                return file.frames / file.samplerate
        except _UnreadableError as error:
            with _container(path, name, error) as container:
                return _announced_seconds(container, path) or _packet_seconds(container)


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


def iter_windows(recording, seconds, *, sample_rate=SAMPLE_RATE):
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
    for block in _blocks(recording, sample_rate, BLOCK_SECONDS):
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
    _check_long_enough(len(kept) / sample_rate, _name(recording))
    yield 0.0, len(kept) / sample_rate, kept


def _blocks(recording, sample_rate, seconds, offset=0.0, duration=None):
    """A recording's samples, mono and at one rate, so many seconds at a time."""
    name = _name(recording)
    resample, rate_before = None, None
    for y, rate in _decode(recording, name, seconds, offset, duration):
        y = _mono(y)
        if not np.isfinite(y).all():
            raise AudioError("holds samples that are no numbers (NaN or infinite).", name)
        if rate != sample_rate:
            if rate != rate_before:
                resample, rate_before = soxr.ResampleStream(rate, sample_rate, 1), rate
            y = resample.resample_chunk(y)
        yield y
    if resample is not None:
        yield resample.resample_chunk(np.empty(0, np.float32), last=True)


def _decode(recording, name, seconds, offset, duration):
    """Blocks of samples as they are in the recording, each with its rate in Hz."""
    if isinstance(recording, tuple):
        y, rate = np.asarray(recording[0]), recording[1]
        for start in range(0, len(y), seconds * rate):
            yield _as_floats(y[start : start + seconds * rate]), rate
        return
    with _audio_errors(name):
        try:
            yield from _decode_by_soundfile(recording, name, seconds, offset, duration)
        except _UnreadableError as error:  # raised before the first block alone
            yield from _decode_by_pyav(recording, name, seconds, offset, duration, error)


@contextmanager
def _audio_errors(name):
    """Damaged files bring about errors of any kind: each is an `AudioError` of this file."""
    try:
        yield
    except AudioError:
        raise
    except Exception as error:
        cause = "memory does not suffice" if isinstance(error, MemoryError) else _cause(error)
        raise AudioError(f"damaged ({cause}). Fetch it again, or leave it out.", name) from error


def _decode_by_soundfile(recording, name, seconds, offset, duration):
    with _soundfile(recording, name) as file:
        quiet = _silenced if file.format == "MP3" else nullcontext
        rate, start, there = file.samplerate, 0, 0
        # libsndfile takes five times as long to make floats of 16 bits as NumPy.
        dtype = "int16" if file.subtype == "PCM_16" else "float32"
        try:
            with quiet():
                start = file.seek(min(int(offset * rate), file.frames))
            wanted = file.frames - start
            if duration is not None:
                wanted = min(wanted, round(duration * rate))
            # `SoundFile.blocks` pads a file that ends early with what lay in memory.
            while there < wanted:
                with quiet():
                    block = file.read(min(seconds * rate, wanted - there), dtype=dtype)
                if len(block) == 0:
                    break
                there += len(block)
                yield _as_floats(block), rate
        except Exception as error:  # a damaged file brings about errors of any kind
            raise _damaged(max(start + there, file.tell()) / rate, error, name) from error
        if there < wanted:
            _check_complete(file.frames / rate, (start + there) / rate, name)


def _decode_by_pyav(recording, name, seconds, offset, duration, unreadable):
    with _container(recording, name, unreadable) as container:
        yield from _joined(_frames(container, recording, offset, duration, name), seconds)


def _frames(container, recording, offset, duration, name):
    """The samples of a piece, mono, some hundred at a time, each with their rate in Hz."""
    from av import FFmpegError

    stream = container.streams.audio[0]
    unit, first = stream.time_base, stream.start_time or 0
    packets, rate, end, lost = 0, 0, None, False
    for packet in _packets(container, name):
        packets += packet.duration or 0
        # A decoder needs what is shortly before a piece, and no more.
        if packet.pts is not None and (packet.pts - first) * unit < offset - 1:
            continue
        try:
            for frame in packet.decode():
                if frame.layout.nb_channels > MOST_CHANNELS or not _is_rate(frame.sample_rate):
                    continue
                rate = frame.sample_rate
                if end is None:
                    end = 0 if frame.pts is None else round((frame.pts - first) * unit * rate)
                start = int(offset * rate) - end
                left = None if duration is None else start + round(duration * rate)
                y = frame.to_ndarray()
                y = y.T if frame.format.is_planar else y.reshape(frame.samples, -1)
                yield _mono(_as_floats(y[max(start, 0) : left])), rate
                end += len(y)
                if left is not None and left <= len(y):
                    return
            lost = lost and not packet.size  # the last packet is empty
        except FFmpegError:  # how much is lost by it is checked at the end
            lost = True
    if not rate and not offset:
        raise ValueError("no frame is whole")
    announced, read = _announced_seconds(container, recording), float(packets * unit)
    there = end / rate if rate else read
    _check_complete(announced or read, there, name)
    if lost and container.format.name in ("aac", "flac") and not announced:
        raise _ends_within_a_frame(name)


def _packets(container, name):
    """The packets of a recording's sound, as they are before they are decoded."""
    packet, stream = None, container.streams.audio[0]
    try:
        for packet in container.demux(stream):
            yield packet
    except Exception as error:
        if packet is None or packet.pts is None:
            raise
        raise _damaged(float(packet.pts * stream.time_base), error, name) from error


def _joined(parts, seconds):
    """Parts of some hundred samples, joined to blocks of so many seconds."""
    block, n, rate = [], 0, 0
    for y, new_rate in parts:
        if n and (n >= seconds * rate or rate != new_rate):
            yield np.concatenate(block), rate
            block, n = [], 0
        block.append(y)
        n, rate = n + len(y), new_rate
    if n:
        yield np.concatenate(block), rate


def _name(recording):
    """What a recording is called in a sentence: see `AudioError`."""
    if not isinstance(recording, (str, Path)):
        recording = str(getattr(recording, "name", "the recording"))
    path = Path(recording)
    # A sentence may end up in a notebook, which names no folder of anybody's machine.
    return printable(Path(path.parent.name, path.name) if path.is_absolute() else path)


def _check_long_enough(seconds, name):
    if seconds < SHORTEST_SECONDS:
        raise AudioError(
            f"{seconds:.2f} s long; a genre needs at least {SHORTEST_SECONDS:.0f} s.", name
        )


def _damaged(seconds, error, name):
    return AudioError(
        f"truncated or damaged: no sound can be read after {seconds:.1f} s ({_cause(error)}). "
        "Fetch the file again, or leave it out.", name,
    )  # fmt: skip


def _ends_within_a_frame(name):
    return AudioError(
        "truncated: it ends within a frame of sound. Fetch the file again, or leave it out.", name
    )


def _check_complete(announced, there, name):
    """Compressed formats state their length to within a frame or two; a second is no such slip."""
    if there < announced - 1:
        raise AudioError(
            f"truncated or damaged: {announced:.1f} s announced, {there:.1f} s there. "
            "Fetch the file again, or leave it out.", name,
        )  # fmt: skip


@contextmanager
def _binary(recording):
    """A recording as a binary file, from its start."""
    if isinstance(recording, (str, Path)):
        with Path(recording).open("rb") as file:
            yield file
        return
    file = io.BytesIO(recording) if isinstance(recording, bytes) else recording
    file.seek(0)
    yield file


@contextmanager
def _soundfile(recording, name):
    """The `SoundFile` of a recording; `_UnreadableError` where PyAV is to read it."""
    head = _checked_head(recording, name)
    known = head[:4] in SOUNDFILE_HEADS
    # libsndfile searches what it does not know for MPEG sound, of which it guesses the length
    # where none is stated, and gives up where some bytes are damaged.
    if not known and _import_av():
        raise _UnreadableError("not readable as sound.", name)
    if _is_mp3(head) and not _mp3_frames(recording):
        recording = _stating_its_length(recording) or recording
    path = isinstance(recording, (str, Path))
    with nullcontext(recording) if path else _binary(recording) as file:
        try:
            with _silenced():
                opened = soundfile.SoundFile(file)
        except Exception as error:  # a damaged file brings about errors of any kind
            raise _unreadable(head, error, name) from error
        with opened:
            _check_bounds(opened.samplerate, opened.channels, name)
            guessed = opened.format == "MP3" and not _mp3_frames(recording)
            if guessed or opened.frames > ENDLESS:
                raise _UnreadableError(
                    "it states no length. Convert it to wav or flac, or leave it out.", name
                )
            yield opened


def _check_bounds(rate, channels, name):
    """A small file may announce so much that memory or hours would go to it."""
    if not _is_rate(rate):
        raise AudioError(
            f"a sample rate of {rate:,} Hz; it must be between {LOWEST_RATE:,} and "
            f"{HIGHEST_RATE:,} Hz. Convert the file to wav or flac, or leave it out.", name,
        )  # fmt: skip
    if channels > MOST_CHANNELS:
        raise AudioError(
            f"{channels} channels; at most {MOST_CHANNELS} are read. Convert the file to stereo, "
            "or leave it out.", name,
        )  # fmt: skip


def _is_rate(rate):
    return LOWEST_RATE <= rate <= HIGHEST_RATE


@contextmanager
def _container(recording, name, unreadable):
    """PyAV's container of a recording; `unreadable` is what libsndfile raised for it."""
    av = _import_av()
    if av is None:
        raise AudioError(
            f"{unreadable.reason} Or install PyAV, which reads more: pip install av", name
        )
    try:
        # ffmpeg also takes playlists, which name other files and addresses.
        only = {"format_whitelist": CONTAINERS}
        with _binary(recording) as file, av.open(file, options=only) as container:
            if not container.streams.audio:
                raise AudioError("there is no sound in it.", name)
            codec = container.streams.audio[0].codec_context
            if not codec.sample_rate:
                raise ValueError("no frame is whole")
            _check_bounds(codec.sample_rate, codec.channels, name)
            yield container
    except AudioError:
        raise
    except Exception as error:  # as above
        with _binary(recording) as file:
            head = file.read(HEAD_BYTES)
        raise _unreadable(head, error, name) from error


def _import_av():
    """PyAV; None where it is not installed."""
    try:
        import av
    except ImportError:
        return None
    return av


def _announced_seconds(container, recording):
    """Length of a recording by its header; 0 where that is missing, and ffmpeg guesses it."""
    stream = container.streams.audio[0]
    if container.format.name == "mp3":
        codec = stream.codec_context
        return _mp3_frames(recording) * codec.frame_size / codec.sample_rate
    if container.format.name == "aac" or not stream.duration:
        return 0.0
    return float(stream.duration * stream.time_base)


def _packet_seconds(container):
    """Length of a recording that is read to its end, but not decoded."""
    stream = container.streams.audio[0]
    return float(sum(packet.duration or 0 for packet in container.demux(stream)) * stream.time_base)


def _mp3_frames(recording):
    """The number of frames that the first frame of an mp3 states, as most encoders have it."""
    with _binary(recording) as file:
        file.seek(_id3_bytes(file.read(10)))
        first = file.read(1024)
    for mark in (b"Xing", b"Info"):
        _, found, after = first.partition(mark)
        if found and len(after) >= 8:
            flags, frames = struct.unpack(">II", after[:8])
            return frames if flags & 1 else 0
    return 0


def _mp3_walk(recording):
    """Of an mp3 that does not state its length: its frames, and whether the last one is whole."""
    with _binary(recording) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        place, frames, first, end = _id3_bytes(file.read(10)), 0, None, None
        while place < size:
            file.seek(place)
            head = file.read(4)
            length = _mp3_frame_bytes(head)
            if first is None and length:  # two at once are no accident
                file.seek(place + length)
                if _same_sound(head, file.read(4)):
                    first, end = head, place
            if length and first is not None and _same_sound(first, head):
                if place + length > size and place == end:
                    return frames, False
                frames, place = frames + 1, place + length
                end = place
                continue
            file.seek(place + 1)  # what lies between frames: tags, padding, damage
            between = file.read(HEAD_BYTES)
            found = MP3_HEAD.search(between)
            place += 1 + (found.start() if found else max(len(between) - 2, 1))
    return frames, True


def _is_mp3(head):
    return head[:3] == b"ID3" or _mp3_frame_bytes(head[:4]) > 0


def _mp3_frame_bytes(head):
    """Length of the frame of MPEG layer III sound that begins with 4 bytes; 0 where none does."""
    bits = int.from_bytes(head, "big") if len(head) == 4 else 0
    version, bitrate, rate = bits >> 19 & 3, bits >> 12 & 15, bits >> 10 & 3
    if bits >> 21 != 0x7FF or bits >> 17 & 3 != 1 or version == 1 or bitrate in (0, 15) or rate > 2:
        return 0
    kbits = (MPEG1_KBITS if version == 3 else MPEG2_KBITS)[bitrate]
    rate = (44100, 48000, 32000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    return (144_000 if version == 3 else 72_000) * kbits // rate + (bits >> 9 & 1)


def _same_sound(head, other):
    """Whether the heads of two frames agree in version, layer and sample rate."""
    alike = _mp3_frame_bytes(other) and head[1] >> 1 == other[1] >> 1
    return bool(alike and head[2] & 0x0C == other[2] & 0x0C)


def _stating_its_length(recording):
    """An mp3 with a new first frame that states its length; None of what is no mp3.

    libsndfile guesses the length of one without such a frame, and reads no further.
    """
    frames, _ = _mp3_walk(recording)
    with _binary(recording) as file:
        file.seek(_id3_bytes(file.read(10)))
        sound = file.read()
    if not frames or not _mp3_frame_bytes(sound[:4]):
        return None
    # Of a middle bitrate, so that there is room, and without a checksum or padding.
    head = bytes([sound[0], sound[1] | 1, 0x90 | sound[2] & 0x0C, sound[3]])
    mono, first_version = head[3] >> 6 == 3, head[1] >> 3 & 3 == 3
    side = (17 if mono else 32) if first_version else (9 if mono else 17)
    frame = head + bytes(side) + b"Info" + struct.pack(">II", 1, frames)
    return frame.ljust(_mp3_frame_bytes(head), b"\0") + sound


def _id3_bytes(head):
    """Length of the ID3 tag before the sound of an mp3; its size is written with 7 bits a byte."""
    if len(head) < 10 or not head.startswith(b"ID3"):
        return 0
    return 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def _mono(y):
    """Samples [shape=(n,) or (n, channels)] -> [shape=(n,), dtype=float32]."""
    return y.mean(axis=1, dtype=np.float32) if y.ndim > 1 else np.asarray(y, np.float32)


def _as_floats(y):
    """Samples of any type as floating point within [-1, 1]."""
    if not np.issubdtype(y.dtype, np.integer):
        return y
    floats = y * np.float32(2.0 ** (1 - np.iinfo(y.dtype).bits))
    return floats if np.issubdtype(y.dtype, np.signedinteger) else floats - 1


def _checked_head(recording, name):
    """The first bytes of a recording, which must not be missing, empty or cut off.

    libsndfile quietly returns what is there of a truncated wav or au; a clip that is half gone
    must not pass for a whole one.
    """
    try:
        if isinstance(recording, (str, Path)) and not Path(recording).is_file():
            raise AudioError("no such file. Check the path.", name)
        with _binary(recording) as file:
            head = file.read(HEAD_BYTES)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise AudioError(f"cannot be read ({error.strerror}).", name) from error
    if size == 0:
        raise AudioError("empty file (0 bytes). Fetch it again, or leave it out.", name)
    announced = _announced_bytes(head)
    # One byte of padding may be missing at the end of a wav of odd length.
    if size + 1 < announced:
        raise AudioError(
            f"truncated: its header announces {announced:,} bytes, the file has {size:,}. "
            "Fetch it again, or leave it out.", name,
        )  # fmt: skip
    if head[:4] == b"OggS" and not _ogg_is_whole(recording):
        raise AudioError(
            "truncated: its last page is not there or not whole. Fetch the file again, or leave it "
            "out.", name,
        )  # fmt: skip
    if _is_mp3(head) and not _mp3_frames(recording):
        _, whole = _mp3_walk(recording)
        if not whole:
            raise _ends_within_a_frame(name)
    return head


def _announced_bytes(head):
    """Length of a file by its header; 0 where that states none, or is a stream's."""
    kind, head, announced = head[:4], head.ljust(28, b"\0"), 0
    if kind == b"RIFF":
        announced = 8 + struct.unpack("<I", head[4:8])[0]
    elif kind in (b"FORM", b"RIFX"):
        announced = 8 + struct.unpack(">I", head[4:8])[0]
    elif kind == b".snd":
        announced = sum(struct.unpack(">II", head[4:12]))
    elif kind == b"RF64" and head[12:16] == b"ds64":
        return 8 + struct.unpack("<Q", head[20:28])[0]
    elif kind == b"riff":
        return struct.unpack("<Q", head[16:24])[0]
    # Streams write 0 or 2**32 - 1 where the length is not known beforehand.
    return announced if announced < 2**32 - 1 else 0


def _ogg_is_whole(recording):
    """Whether the last page of an Ogg file is whole, and says that it is the last."""
    with _binary(recording) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LONGEST_OGG_PAGE))
        _, found, page = file.read().rpartition(b"OggS")
    if not found or len(page) < 23:
        return False
    lengths = page[23 : 23 + page[22]]
    whole = len(lengths) == page[22] and len(page) >= 23 + len(lengths) + sum(lengths)
    return whole and bool(page[1] & 4)


def _unreadable(head, error, name):
    """The `_UnreadableError` that names what is in the file, or else the decoder's own cause."""
    text = not any(byte < 32 and byte not in b"\t\n\f\r" for byte in head)
    way_out = "Fetch it again, or leave it out."
    if text and head.lstrip()[:1] == b"<":
        found = "it is a web page or XML"
    elif text:
        found = "it is text"
    elif not head.strip(b"\0"):
        found = f"its first {len(head):,} bytes are zeros"
    elif head.startswith(b"ID3"):
        found = f"no MPEG sound after its ID3 tag of {_id3_bytes(head):,} bytes"
    else:
        found, way_out = _cause(error), "Convert it to wav or flac, or leave it out."
    return _UnreadableError(f"not readable as sound ({found}). {way_out}", name)


def _cause(error):
    """A decoder's own words for `error`, without the path that it puts in front of them."""
    words = getattr(error, "error_string", None) or getattr(error, "strerror", None)
    words = printable(words).removeprefix("Error : ") if isinstance(words, str) else ""
    # What libsndfile and ffmpeg call a file in which they find nothing that they know.
    unknown = ("File does not exist or is not a regular file", "Invalid argument")
    if words and words.startswith(unknown):
        return "no format that is known"
    return words[:1].lower() + words[1:].rstrip(". ") if words else "it is damaged"


_silence = threading.Lock()
_silenced_by, _stderr = 0, None


@contextmanager
def _silenced():
    """libmpg123, within libsndfile, writes notes to the standard error that name no file.

    Nothing in libsndfile turns them off. So the standard error of the process leads nowhere while
    any of its threads is in here.
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
