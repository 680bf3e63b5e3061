"""Decode by PyAV, which reads what libsndfile does not: mp3, m4a, aac, wma, the sound of videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from .containers import HEAD_BYTES, mp3_frames, opened, unreadable
from .recording import (
    MOST_CHANNELS,
    AudioError,
    Recording,
    as_floats,
    check_bounds,
    check_complete,
    damaged,
    ends_within_frame,
    is_sample_rate,
    mono,
)

if TYPE_CHECKING:
    from av.container import InputContainer

FORMATS = "aac,asf,avi,flac,matroska,mov,mp3,mpeg,mpegts,ogg,wav"  # that PyAV may open


def import_av() -> ModuleType | None:
    """PyAV; None if it is not installed."""
    try:
        import av
    except ImportError:
        return None
    return av


def decode_by_pyav(
    recording: Recording,
    name: str,
    seconds: int,
    offset: float,
    duration: float | None,
    error: AudioError,
) -> Iterator[tuple[np.ndarray, int]]:
    with _container(recording, name, error) as container:
        yield from _joined(_frames(container, recording, offset, duration, name), seconds)


def duration_by_pyav(recording: Recording, name: str, error: AudioError) -> float:
    """Length of a recording in seconds, without decoding it."""
    with _container(recording, name, error) as container:
        return _stated_seconds(container, recording) or _packet_seconds(container)


@contextmanager
def _container(recording: Recording, name: str, error: AudioError) -> Iterator[InputContainer]:
    """PyAV's container of a recording; `error` is what libsndfile raised for it."""
    av = import_av()
    if av is None:
        raise AudioError(
            f"{error.reason} Or install PyAV, which reads more formats: pip install av", name
        )
    try:
        # ffmpeg also opens playlists, which name other files and addresses.
        only = {"format_whitelist": FORMATS}
        with opened(recording) as file, av.open(file, options=only) as container:
            if not container.streams.audio:
                raise AudioError("there is no sound in it.", name)
            codec = container.streams.audio[0].codec_context
            if not codec.sample_rate:
                raise ValueError("no frame is complete")
            check_bounds(codec.sample_rate, codec.channels, name)
            yield container
    except AudioError:
        raise
    except Exception as error:  # see `audio_errors`
        with opened(recording) as file:
            head = file.read(HEAD_BYTES)
        raise unreadable(head, error, name) from error


def _frames(
    container: InputContainer,
    recording: Recording,
    offset: float,
    duration: float | None,
    name: str,
) -> Iterator[tuple[np.ndarray, int]]:
    """The samples of a piece, mono, some hundred at a time, each with their rate in Hz."""
    from av import FFmpegError

    stream = container.streams.audio[0]
    unit, first = stream.time_base, stream.start_time or 0
    packets, rate, end, lost = 0, 0, None, False
    for packet in _packets(container, name):
        packets += packet.duration or 0
        # A decoder needs the second before a piece, and no more.
        if packet.pts is not None and (packet.pts - first) * unit < offset - 1:
            continue
        try:
            for frame in packet.decode():
                channels, frame_rate = frame.layout.nb_channels, frame.sample_rate
                if channels > MOST_CHANNELS or not is_sample_rate(frame_rate):
                    continue
                rate = frame_rate
                if end is None:
                    end = 0 if frame.pts is None else round((frame.pts - first) * unit * rate)
                start = int(offset * rate) - end
                left = None if duration is None else start + round(duration * rate)
                y = frame.to_ndarray()
                y = y.T if frame.format.is_planar else y.reshape(frame.samples, -1)
                yield mono(as_floats(y[max(start, 0) : left])), rate
                end += len(y)
                if left is not None and left <= len(y):
                    return
            lost = lost and not packet.size  # the last packet is empty
        except FFmpegError:  # the missing length is checked at the end
            lost = True
    if not rate and not offset:
        raise ValueError("no frame is complete")
    stated, read = _stated_seconds(container, recording), float(packets * unit)
    check_complete(stated or read, end / rate if rate else read, name)
    if lost and container.format.name in ("aac", "flac") and not stated:
        raise ends_within_frame(name)


def _packets(container: InputContainer, name: str) -> Iterator[Any]:
    """The packets of a recording's sound, before they are decoded."""
    packet, stream = None, container.streams.audio[0]
    try:
        for packet in container.demux(stream):
            yield packet
    except Exception as error:  # see `audio_errors`
        if packet is None or packet.pts is None:
            raise
        raise damaged(float(packet.pts * stream.time_base), error, name) from error


def _joined(
    parts: Iterable[tuple[np.ndarray, int]], seconds: int
) -> Iterator[tuple[np.ndarray, int]]:
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


def _stated_seconds(container: InputContainer, recording: Recording) -> float:
    """Length of a recording by its header; 0 if it states none, where ffmpeg guesses."""
    stream = container.streams.audio[0]
    if container.format.name == "mp3":
        codec = stream.codec_context
        return mp3_frames(recording) * codec.frame_size / codec.sample_rate
    if container.format.name == "aac" or not stream.duration:
        return 0.0
    return float(stream.duration * stream.time_base)


def _packet_seconds(container: InputContainer) -> float:
    """Length of a recording by its packets, which are read to the end but not decoded."""
    stream = container.streams.audio[0]
    return float(sum(packet.duration or 0 for packet in container.demux(stream)) * stream.time_base)
