"""The bytes of an audio file before it is decoded: is it complete, and what is it?

libsndfile returns the first part of a truncated wav or au without an error, and guesses the length
of an mp3 that states none. A truncated clip must not pass for a whole one, so its header is
compared with its size first.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .recording import AudioError, Recording, UnreadableError, cause_of, ends_within_frame

HEAD_BYTES = 4096  # of a file, read to recognise its format
LONGEST_OGG_PAGE = 27 + 255 + 255 * 255
MP3_HEAD = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]")  # of a layer III frame
MPEG1_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # of layer III
MPEG2_KBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


@contextmanager
def opened(recording: Recording) -> Iterator[BinaryIO]:
    """A recording as a binary file, from its start."""
    if isinstance(recording, (str, Path)):
        with Path(recording).open("rb") as file:
            yield file
        return
    file = io.BytesIO(recording) if isinstance(recording, bytes) else recording
    file.seek(0)
    yield file


def checked_head(recording: Recording, name: str) -> bytes:
    """The first bytes of a recording; `AudioError` if it is missing, empty or truncated."""
    try:
        if isinstance(recording, (str, Path)) and not Path(recording).is_file():
            raise AudioError("no such file. Check the path.", name)
        with opened(recording) as file:
            head = file.read(HEAD_BYTES)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise AudioError(f"cannot be read ({error.strerror}).", name) from error
    if size == 0:
        raise AudioError("empty file (0 bytes). Download it again, or leave it out.", name)
    stated = _stated_bytes(head)
    # One byte of padding may be missing at the end of a wav of odd length.
    if size + 1 < stated:
        raise AudioError(
            f"truncated: its header states {stated:,} bytes, the file has {size:,}. "
            "Download it again, or leave it out.",
            name,
        )
    if head[:4] == b"OggS" and not _ogg_is_complete(recording):
        raise AudioError(
            "truncated: its last page is missing or incomplete. Download the file again, or leave "
            "it out.",
            name,
        )
    if is_mp3(head) and not mp3_frames(recording):
        _, complete = _walk_mp3(recording)
        if not complete:
            raise ends_within_frame(name)
    return head


def _stated_bytes(head: bytes) -> int:
    """Length of a file by its header; 0 if it states none, as that of a stream."""
    kind, head, stated = head[:4], head.ljust(28, b"\0"), 0
    if kind == b"RIFF":
        stated = 8 + struct.unpack("<I", head[4:8])[0]
    elif kind in (b"FORM", b"RIFX"):
        stated = 8 + struct.unpack(">I", head[4:8])[0]
    elif kind == b".snd":
        stated = sum(struct.unpack(">II", head[4:12]))
    elif kind == b"RF64" and head[12:16] == b"ds64":
        return 8 + struct.unpack("<Q", head[20:28])[0]
    elif kind == b"riff":
        return struct.unpack("<Q", head[16:24])[0]
    # Streams write 0 or 2**32 - 1, since the length is not known beforehand.
    return stated if stated < 2**32 - 1 else 0


def _ogg_is_complete(recording: Recording) -> bool:
    """Whether the last page of an Ogg file is complete and marked as the last."""
    with opened(recording) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LONGEST_OGG_PAGE))
        _, found, page = file.read().rpartition(b"OggS")
    if not found or len(page) < 23:
        return False
    lengths = page[23 : 23 + page[22]]
    complete = len(lengths) == page[22] and len(page) >= 23 + len(lengths) + sum(lengths)
    return complete and bool(page[1] & 4)


def is_mp3(head: bytes) -> bool:
    return head[:3] == b"ID3" or _frame_bytes(head[:4]) > 0


def mp3_frames(recording: Recording) -> int:
    """The number of frames that the first frame of an mp3 states; 0 if it states none."""
    with opened(recording) as file:
        file.seek(id3_bytes(file.read(10)))
        first = file.read(1024)
    for mark in (b"Xing", b"Info"):
        _, found, after = first.partition(mark)
        if found and len(after) >= 8:
            flags, frames = struct.unpack(">II", after[:8])
            return frames if flags & 1 else 0
    return 0


def with_stated_length(recording: Recording) -> bytes | None:
    """An mp3 with a new first frame that states its length; None if it is not an mp3.

    libsndfile guesses the length of one without such a frame, and reads no further.
    """
    frames, _ = _walk_mp3(recording)
    with opened(recording) as file:
        file.seek(id3_bytes(file.read(10)))
        sound = file.read()
    if not frames or not _frame_bytes(sound[:4]):
        return None
    # Of a middle bitrate, so that there is room, and without a checksum or padding.
    head = bytes([sound[0], sound[1] | 1, 0x90 | sound[2] & 0x0C, sound[3]])
    mono, first_version = head[3] >> 6 == 3, head[1] >> 3 & 3 == 3
    side = (17 if mono else 32) if first_version else (9 if mono else 17)
    frame = head + bytes(side) + b"Info" + struct.pack(">II", 1, frames)
    return frame.ljust(_frame_bytes(head), b"\0") + sound


def _walk_mp3(recording: Recording) -> tuple[int, bool]:
    """Number of frames of an mp3 that does not state it, and whether the last is complete."""
    with opened(recording) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        place, frames, first, end = id3_bytes(file.read(10)), 0, None, None
        while place < size:
            file.seek(place)
            head = file.read(4)
            length = _frame_bytes(head)
            if first is None and length:  # two frames in a row are no coincidence
                file.seek(place + length)
                if _same_format(head, file.read(4)):
                    first, end = head, place
            if length and first is not None and _same_format(first, head):
                if place + length > size and place == end:
                    return frames, False
                frames, place = frames + 1, place + length
                end = place
                continue
            file.seek(place + 1)  # between frames: tags, padding, damage
            between = file.read(HEAD_BYTES)
            found = MP3_HEAD.search(between)
            place += 1 + (found.start() if found else max(len(between) - 2, 1))
    return frames, True


def _frame_bytes(head: bytes) -> int:
    """Length of the MPEG layer III frame that begins with these 4 bytes; 0 if none does."""
    bits = int.from_bytes(head, "big") if len(head) == 4 else 0
    version, bitrate, rate = bits >> 19 & 3, bits >> 12 & 15, bits >> 10 & 3
    if bits >> 21 != 0x7FF or bits >> 17 & 3 != 1 or version == 1 or bitrate in (0, 15) or rate > 2:
        return 0
    kbits = (MPEG1_KBITS if version == 3 else MPEG2_KBITS)[bitrate]
    rate = (44100, 48000, 32000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    return (144_000 if version == 3 else 72_000) * kbits // rate + (bits >> 9 & 1)


def _same_format(head: bytes, other: bytes) -> bool:
    """Whether the heads of two frames agree in version, layer and sample rate."""
    alike = _frame_bytes(other) and head[1] >> 1 == other[1] >> 1
    return bool(alike and head[2] & 0x0C == other[2] & 0x0C)


def id3_bytes(head: bytes) -> int:
    """Length of the ID3 tag before the sound of an mp3; its size is stored 7 bits per byte."""
    if len(head) < 10 or not head.startswith(b"ID3"):
        return 0
    return 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def unreadable(head: bytes, error: Exception, name: str) -> UnreadableError:
    """The error of a file of another kind: with its kind if it is recognised, else the cause."""
    text = not any(byte < 32 and byte not in b"\t\n\f\r" for byte in head)
    remedy = "Download it again, or leave it out."
    if text and head.lstrip()[:1] == b"<":
        found = "it is a web page or XML"
    elif text:
        found = "it is text"
    elif not head.strip(b"\0"):
        found = f"its first {len(head):,} bytes are zeros"
    elif head.startswith(b"ID3"):
        found = f"no MPEG sound after its ID3 tag of {id3_bytes(head):,} bytes"
    else:
        found, remedy = cause_of(error), "Convert it to wav or flac, or leave it out."
    return UnreadableError(f"not readable as sound ({found}). {remedy}", name)
