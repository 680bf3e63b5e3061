import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import id3_cover, write_by_pyav
from hypothesis import given, settings, strategies as st

from melgenre.data.audio import (
    AUDIO_SUFFIXES,
    SAMPLE_RATE,
    AudioError,
    audio_duration,
    iter_windows,
    load_audio,
    play,
)
from melgenre.data.collection import find_tracks
from melgenre.features.images import load_center
from melgenre.inference.songs import find_audio_files


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "au", "aiff"])
@pytest.mark.parametrize("rate, channels", [(22050, 1), (44100, 2), (48000, 1)])
def test_every_common_format_becomes_mono_at_one_rate(tmp_path, write_song, suffix, rate, channels):
    y = load_audio(write_song(tmp_path / f"song.{suffix}", 3, rate, channels))
    assert y.dtype == np.float32
    assert y.ndim == 1
    assert abs(len(y) / SAMPLE_RATE - 3) < 0.1
    assert 0.3 < np.abs(y).max() < 1
    # The three notes of the chord are far louder than everything else.
    spectrum = np.abs(np.fft.rfft(y * np.hanning(len(y))))
    peaks = np.fft.rfftfreq(len(y), 1 / SAMPLE_RATE)[spectrum > 0.5 * spectrum.max()]
    assert {220, 277, 330} == {round(peak) for peak in peaks}


def test_six_channels_are_averaged(tmp_path, write_song):
    song = write_song(tmp_path / "surround.wav", channels=6)
    np.testing.assert_allclose(
        load_audio(song), load_audio(write_song(tmp_path / "mono.wav")), atol=1e-4
    )


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a"])
@settings(max_examples=25)
@given(offset=st.floats(0, 3), duration=st.floats(1, 5))
def test_a_piece_is_the_same_as_cut_from_the_whole(tmp_path_factory, suffix, offset, duration):
    song = tmp_path_factory.getbasetemp() / f"piece.{suffix}"
    if not song.exists():
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (5 * SAMPLE_RATE, 1))
        if suffix == "m4a":
            pytest.importorskip("av")
            write_by_pyav(song, noise, SAMPLE_RATE)
        else:
            soundfile.write(song, noise, SAMPLE_RATE)
    start = int(offset * SAMPLE_RATE)
    whole = load_audio(song)[start : start + round(duration * SAMPLE_RATE)]
    piece = load_audio(song, offset=offset, duration=duration)
    np.testing.assert_allclose(piece, whole, atol=0 if suffix == "wav" else 1e-5)


def truncated(path, write_song):
    song = write_song(path.with_suffix(".wav"))
    song.write_bytes(song.read_bytes()[: song.stat().st_size // 2])
    return song


def truncated_au(path, write_song):
    song = write_song(path.with_suffix(".au"))
    song.write_bytes(song.read_bytes()[:9000])
    return song


def truncated_mp3(path, write_song):
    song = write_song(path.with_suffix(".mp3"), seconds=5)
    song.write_bytes(song.read_bytes()[: song.stat().st_size // 2])
    return song


def damaged_mp3(path, write_song):
    content = bytearray(write_song(path.with_suffix(".mp3"), seconds=9).read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    return path


def a_tag_alone(path, write_song):
    path.write_bytes(id3_cover())
    return path


def a_web_page(path, write_song):
    path.write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    return path


def zeros(path, write_song):
    path.write_bytes(bytes(100_000))
    return path


def no_format(path, write_song):
    path.write_bytes(np.random.default_rng(0).bytes(100_000))
    return path


def a_playlist(path, write_song):
    """ffmpeg would open the files and addresses that a playlist names."""
    song = write_song(path.with_name("secret.wav"), seconds=3)
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:3", "#EXTINF:3,", str(song), "#EXT-X-ENDLIST"]
    path.write_text("\n".join(lines) + "\n\0")
    return path


def truncated_flac(path, write_song):
    song = write_song(path.with_suffix(".flac"), seconds=5)
    song.write_bytes(song.read_bytes()[: song.stat().st_size // 2])
    return song


def not_a_number(path, write_song):
    song = path.with_suffix(".wav")
    soundfile.write(song, np.full(3 * SAMPLE_RATE, np.nan), SAMPLE_RATE, subtype="FLOAT")
    return song


def a_text(path, write_song):
    path.write_text("This is not a song.\n" * 1000)
    return path


def a_hundred_hours(path, write_song):
    song = write_song(path.with_suffix(".wav"), seconds=1.5)
    content = bytearray(song.read_bytes())
    content[4:8] = struct.pack("<I", 2**32 - 2**20)
    content[40:44] = struct.pack("<I", 2**32 - 2**20)
    song.write_bytes(content[:1000])
    return song


def too_short(path, write_song):
    return write_song(path.with_suffix(".wav"), seconds=0.1)


def empty(path, write_song):
    path.write_bytes(b"")
    return path


def a_zip(path, write_song):
    path.write_bytes(b"PK\x03\x04" + bytes(2000))
    return path


def missing(path, write_song):
    return path


def a_folder(path, write_song):
    path.mkdir()
    return path


@pytest.mark.parametrize(
    "broken, cause",
    [
        (truncated, "truncated"),
        (truncated_au, "truncated"),
        (truncated_flac, "damaged"),
        (not_a_number, "not numbers"),
        (truncated_mp3, "truncated or damaged: 5.* s expected"),
        (damaged_mp3, "damaged"),
        (a_text, r"not readable as sound \(it is text\)"),
        (a_tag_alone, "its ID3 tag of [0-9,]+ bytes"),
        (a_web_page, r"\(it is a web page or XML\)"),
        (zeros, "first 4,096 bytes are zeros"),
        (no_format, "not readable as sound"),
        (a_playlist, "not readable as sound"),
        (a_hundred_hours, "truncated"),
        (too_short, "0.10 s long"),
        (empty, "empty"),
        (a_zip, "not readable as sound"),
        (missing, "no such file"),
        (a_folder, "no such file"),
    ],
)
@pytest.mark.parametrize("pyav", ["with PyAV", "without PyAV"])
def test_an_unusable_file_gets_a_sentence_that_names_it(
    tmp_path, write_song, broken, cause, pyav, monkeypatch, capfd
):
    if pyav == "without PyAV":
        monkeypatch.setitem(sys.modules, "av", None)
    else:
        pytest.importorskip("av")
    (tmp_path / "album").mkdir()
    song = broken(tmp_path / "album" / "song.mp3", write_song)
    with pytest.raises(AudioError, match=cause) as raised:
        load_audio(song)
    assert str(raised.value) == f"album/{song.name}: {raised.value.reason}"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AudioError) as again:
        list(iter_windows(song.relative_to(tmp_path), 30))
    assert str(again.value) == str(raised.value), "one reader, and a relative path as it was given"
    assert capfd.readouterr().err == "", "decoders write notes that name no file"


def test_a_file_that_may_not_be_read_gets_a_sentence(tmp_path, write_song, monkeypatch):
    song = write_song(tmp_path / "song.wav")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(AudioError, match=r"song.wav: cannot be read \(Permission denied\)"):
        load_audio(song)


@pytest.mark.parametrize("suffix, codec", [("m4a", "aac"), ("m4a", "alac"), ("aac", "aac"),
    ("mp4", "aac"), ("wma", "wmav2"), ("mkv", "aac"), ("webm", "libopus")])  # fmt: skip
def test_what_libsndfile_does_not_read_is_read_by_pyav(tmp_path, write_song, suffix, codec):
    pytest.importorskip("av")
    y, _ = soundfile.read(write_song(tmp_path / "song.wav", 4, 48000, 2), always_2d=True)
    song = tmp_path / f"song.{suffix}"
    write_by_pyav(song, y, 48000, codec=codec)
    assert audio_duration(song) == pytest.approx(4, abs=0.15)
    whole = load_audio(song)
    assert len(whole) / SAMPLE_RATE == pytest.approx(4, abs=0.15)
    assert np.abs(whole).max() == pytest.approx(np.abs(y).max(), abs=0.1)
    assert len(load_audio(song, offset=1, duration=2)) == 2 * SAMPLE_RATE
    for recording in (song, song.read_bytes()):
        ((_, _, window),) = iter_windows(recording, 30)
        np.testing.assert_array_equal(window, whole)


CODECS = {
    ".aac": "aac", ".avi": "mp3", ".m4a": "aac", ".m4b": "aac", ".m4v": "aac", ".mka": "aac",
    ".mkv": "aac", ".mov": "aac", ".mp4": "aac", ".mpg": "mp2", ".webm": "libopus", ".wma": "wmav2",
    ".wmv": "wmav2",
}  # fmt: skip


@pytest.mark.slow
def test_every_format_is_found_in_a_folder_and_read(tmp_path, write_song, capsys):
    pytest.importorskip("av")
    y, _ = soundfile.read(write_song(tmp_path / "song.wav", 3, 48000, 2), always_2d=True)
    for suffix in AUDIO_SUFFIXES:
        song = tmp_path / "music" / "jazz" / f"as {suffix[1:]}{suffix.upper()}"
        if suffix in CODECS:
            song.parent.mkdir(parents=True, exist_ok=True)
            write_by_pyav(song, y, 48000, codec=CODECS[suffix])
        else:
            write_song(song, 3, 48000, 2)
    tracks = find_tracks(tmp_path / "music")
    assert set(tracks["path"].map(lambda path: Path(path).suffix.lower())) == AUDIO_SUFFIXES
    assert find_audio_files(tmp_path / "music") == [Path(path) for path in tracks["path"]]
    for path in tracks["path"]:
        assert audio_duration(path) == pytest.approx(3, abs=0.15), path
        assert len(load_audio(path)) / SAMPLE_RATE == pytest.approx(3, abs=0.15), path
        assert play(path, start=1, seconds=1).mimetype == "audio/mpeg"


@pytest.mark.parametrize("suffix", ["mp3", "m4a"])
def test_a_cover_image_does_not_disturb(tmp_path, write_song, suffix):
    pytest.importorskip("av")
    y, rate = soundfile.read(write_song(tmp_path / "song.wav", 3, 44100), always_2d=True)
    plain, covered = tmp_path / f"plain.{suffix}", tmp_path / f"covered.{suffix}"
    if suffix == "mp3":
        soundfile.write(plain, y, rate)
        covered.write_bytes(id3_cover() + plain.read_bytes())
    else:
        write_by_pyav(plain, y, rate)
        write_by_pyav(covered, y, rate, cover=True)
    np.testing.assert_array_equal(load_audio(covered), load_audio(plain))


def test_too_many_channels_for_pyav_get_a_sentence(tmp_path):
    """PyAV would read beyond its memory, and the process would crash."""
    pytest.importorskip("av")
    y = np.random.default_rng(0).uniform(-0.5, 0.5, (2 * SAMPLE_RATE, 16))
    write_by_pyav(tmp_path / "wide.m4a", y, SAMPLE_RATE)
    with pytest.raises(AudioError, match="wide.m4a: 16 channels; at most 8 are read"):
        load_audio(tmp_path / "wide.m4a")


class TestMp3WithoutALength:
    """An mp3 without the first frame that states its length, which decoders then guess."""

    @pytest.fixture
    def content(self, tmp_path):
        """A second of silence, which takes few bytes, before nine of noise, which takes many."""
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * 44100)
        noise[:44100] = 0
        soundfile.write(tmp_path / "song.mp3", noise, 44100, bitrate_mode="VARIABLE")
        content = (tmp_path / "song.mp3").read_bytes()
        return content[content.index(b"\xff\xfb", 4) :]

    @pytest.fixture(params=["with PyAV", "without PyAV"])
    def pyav(self, request, monkeypatch):
        if request.param == "without PyAV":
            monkeypatch.setitem(sys.modules, "av", None)
        else:
            pytest.importorskip("av")

    @pytest.mark.parametrize("tail", [b"", b"TAG".ljust(128), bytes(5000)])
    def test_it_is_read_to_its_end_and_each_time_the_same(self, content, tmp_path, pyav, tail):
        song = tmp_path / "song.mp3"
        song.write_bytes(content + tail)
        assert audio_duration(song) == pytest.approx(10, abs=0.2)
        first = load_audio(song)
        assert len(first) / SAMPLE_RATE == pytest.approx(10, abs=0.2)
        for _ in range(12):
            np.full(10**6, np.inf, np.float32)  # the content of memory must not be read
            np.testing.assert_array_equal(load_audio(song), first)

    @pytest.mark.parametrize("rate, channels", [(44100, 2), (22050, 1), (11025, 2), (8000, 1)])
    def test_every_mpeg_version_has_its_full_length(self, tmp_path, pyav, rate, channels):
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (5 * rate, channels))
        soundfile.write(tmp_path / "song.mp3", noise, rate, bitrate_mode="VARIABLE")
        content = (tmp_path / "song.mp3").read_bytes()
        stated = len(load_audio(content)) / SAMPLE_RATE
        start = content.index(content[:2], 4)  # after the frame that states the length
        assert len(load_audio(content[start:])) / SAMPLE_RATE == pytest.approx(stated, abs=0.2)

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.97])
    def test_a_file_that_ends_within_a_frame_gets_a_sentence(self, content, pyav, share):
        for recording in (content[: int(share * len(content))], id3_cover() + content[:-50]):
            for read in (load_audio, lambda recording: list(iter_windows(recording, 2))):
                with pytest.raises(AudioError, match="truncated: it ends within a frame"):
                    read(recording)


FORMATS = [
    ("mp3", None, None), ("ogg", None, "VORBIS"), ("opus", "OGG", "OPUS"), ("flac", None, None),
    ("wav", None, None), ("au", None, None), ("aiff", None, None), ("rf64", "RF64", None),
    ("w64", None, None), ("be.wav", "WAV", None),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("pyav", ["with PyAV", "without PyAV"])
@pytest.mark.parametrize("suffix, format, subtype", FORMATS)
def test_a_complete_file_is_read_and_a_truncated_one_gets_a_sentence(
    tmp_path, suffix, format, subtype, pyav, monkeypatch
):
    if pyav == "without PyAV":
        monkeypatch.setitem(sys.modules, "av", None)
    song = tmp_path / f"song.{suffix}"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 20 * 24000)
    format = format or {"au": "AU"}.get(suffix)
    endian = "BIG" if suffix == "be.wav" else "FILE"
    soundfile.write(song, noise, 24000, format=format, subtype=subtype, endian=endian)
    whole = song.read_bytes()
    assert len(load_audio(whole)) / SAMPLE_RATE == pytest.approx(20, abs=0.1)
    for share in (0.2, 0.5, 0.9):
        cut = whole[: int(share * len(whole))]
        song.write_bytes(cut)
        for recording in (song, cut, io.BytesIO(cut)):
            with pytest.raises(AudioError, match="truncated"):
                load_audio(recording)
            with pytest.raises(AudioError, match="truncated"):
                list(iter_windows(recording, 5))


@pytest.fixture
def streamed_flac(tmp_path, write_song):
    """A flac whose header states no length, as `flac -` writes it into a pipe."""
    song = write_song(tmp_path / "streamed.flac", seconds=40)
    content = bytearray(song.read_bytes())
    content[21] &= 0xF0  # the last 36 bits before the checksum count the samples
    content[22:42] = bytes(20)
    song.write_bytes(content)
    return song


def test_a_flac_of_unknown_length_is_read_and_measured(streamed_flac):
    pytest.importorskip("av")
    for recording in (streamed_flac, streamed_flac.read_bytes()):
        assert audio_duration(recording) == pytest.approx(40)
        assert len(load_audio(recording)) == 40 * SAMPLE_RATE
    assert len(load_center(streamed_flac)) == 31 * SAMPLE_RATE
    streamed_flac.write_bytes(streamed_flac.read_bytes()[:-1000])
    with pytest.raises(AudioError, match="truncated"):
        load_audio(streamed_flac)


def test_a_flac_of_unknown_length_without_pyav_gets_a_sentence(streamed_flac, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    for read in (load_audio, audio_duration):
        with pytest.raises(AudioError, match="states no length.*pip install av"):
            read(streamed_flac)


def wav_of(rate, channels=1, frames=65_000):
    content = bytes(2 * channels * frames)
    format = struct.pack(
        "<HHIIHH", 1, channels, rate, 2 * channels * rate & 2**32 - 1, 2 * channels, 16
    )
    body = b"WAVEfmt " + struct.pack("<I", 16) + format
    body += b"data" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 2**31 - 1])
def test_a_rate_that_no_music_has_is_refused(rate):
    """130 kB at a stated 1 Hz would be 18 hours of sound, and take minutes to resample."""
    for read in (load_audio, audio_duration, lambda song: list(iter_windows(song, 30))):
        with pytest.raises(AudioError, match="sample rate of|not readable"):
            read(wav_of(rate))


@pytest.mark.slow
def test_more_channels_than_any_recording_has_are_refused_unread(tmp_path):
    assert len(load_audio(wav_of(22050, channels=8)))
    with pytest.raises(AudioError, match="9 channels; at most 8 are read. Convert"):
        load_audio(wav_of(22050, channels=9))
    # 8 kB of silence on 255 channels, which would take a gigabyte.
    soundfile.write(tmp_path / "wide.ogg", np.zeros((30_000, 255), np.float32), 22050)
    code = """
import resource, sys
from melgenre.data.audio import AudioError, load_audio
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_audio(sys.argv[1])
except AudioError as error:
    print(error)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", code, tmp_path / "wide.ogg"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sentence, kilobytes = printed.splitlines()
    assert "255 channels" in sentence
    assert int(kilobytes) < 100_000


DECODER_ERRORS = [
    AttributeError("no"), IndexError(), struct.error(), MemoryError(), ValueError(), OSError(5),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "no"), OverflowError(), RuntimeError(), EOFError(),
]  # fmt: skip


@pytest.mark.parametrize("error", DECODER_ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("suffix", ["wav", "m4a"])
def test_every_error_of_a_decoder_becomes_an_audio_error_of_the_file(
    tmp_path, write_song, monkeypatch, error, suffix
):
    av = pytest.importorskip("av")
    song = write_song(tmp_path / "song.wav", seconds=3)

    def fail(*_, **__):
        raise error

    if suffix == "m4a":
        y, rate = soundfile.read(song, always_2d=True)
        song = tmp_path / "song.m4a"
        write_by_pyav(song, y, rate)
        monkeypatch.setattr(av, "open", fail)
    else:
        monkeypatch.setattr(soundfile.SoundFile, "seek", fail)
        monkeypatch.setattr(soundfile.SoundFile, "frames", property(fail))
    for read in (load_audio, audio_duration, lambda song: list(iter_windows(song, 1))):
        with pytest.raises(AudioError, match=f"song.{suffix}: ."):
            read(song)


@pytest.mark.parametrize(
    "name", [b"x" * 251 + b".wav", b"caf\xe9.wav", "é".encode() * 125 + b".wav"]
)
def test_a_file_of_any_name_is_read(tmp_path, write_song, name):
    song = tmp_path / os.fsdecode(name)
    try:
        write_song(tmp_path / "song.wav").rename(song)
    except OSError:
        pytest.skip("this file system has no such names")
    assert audio_duration(song) == 2
    assert len(load_audio(song)) == 2 * SAMPLE_RATE
    song.write_bytes(b"no song" * 99)
    with pytest.raises(AudioError, match="it is text"):
        load_audio(str(song))


@pytest.mark.parametrize("name", ["x" * 300 + ".wav", "a\0b.wav", "\udcff.wav", ""])
def test_a_name_that_no_file_can_have_gets_a_sentence(tmp_path, name):
    for read in (load_audio, audio_duration, lambda song: list(iter_windows(song, 30))):
        with pytest.raises(AudioError, match="no such file|cannot be read"):
            read(f"{tmp_path}/{name}")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_without_permission_gets_a_sentence(tmp_path, write_song):
    song = write_song(tmp_path / "song.wav")
    song.chmod(0)
    with pytest.raises(AudioError, match="cannot be read"):
        load_audio(song)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mp3", "m4a", "ogg", "flac", "wav"])
def test_a_damaged_file_is_read_or_gets_a_sentence_and_never_another_error(
    tmp_path, write_song, suffix, capfd
):
    pytest.importorskip("av")
    song = write_song(tmp_path / "song.wav", 2, 44100, 2)
    if suffix != "wav":
        y, rate = soundfile.read(song, always_2d=True)
        song = tmp_path / f"song.{suffix}"
        write_by_pyav(song, y, rate) if suffix == "m4a" else soundfile.write(song, y, rate)
    rng, whole, sentences = np.random.default_rng(0), song.read_bytes(), 0
    for number in range(60):
        content = bytearray(whole)
        reach = len(content) if number % 2 else min(len(content), 3000)  # the header, or anywhere
        for place in rng.integers(reach, size=1 + number):
            content[place] = rng.integers(256)
        for read in (load_audio, lambda content: list(iter_windows(content, 30))):
            try:
                read(bytes(content))
            except AudioError:
                sentences += 1
    assert sentences, "nothing was damaged"
    assert capfd.readouterr().err == ""


def test_a_process_without_a_standard_error_reads(tmp_path, write_song):
    song = write_song(tmp_path / "song.mp3")
    code = "import os, sys; os.close(2); import melgenre.data.audio as a; a.load_audio(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, song], check=True)


def test_duration_comes_from_the_header(tmp_path, write_song):
    assert audio_duration(write_song(tmp_path / "song.flac", 2.5)) == pytest.approx(2.5)


def test_a_player_is_small_and_holds_sound(tmp_path, write_song):
    player = play(write_song(tmp_path / "song.wav", 60), seconds=5)
    page = player._repr_html_()
    assert "data:audio/mpeg;base64," in page
    assert len(page) < 150_000
    y, rate = load_audio(tmp_path / "song.wav"), SAMPLE_RATE
    assert play((y, rate), start=0, seconds=5)._repr_html_() == page


class TestWindows:
    @pytest.mark.parametrize("seconds", [3.0, 10.9, 11.1, 20.0, 25.3, 61.0])
    @pytest.mark.parametrize("rate", [SAMPLE_RATE, 44100])
    def test_they_cover_a_recording_without_a_gap(self, tmp_path, seconds, rate):
        y = np.random.default_rng(0).normal(0, 0.1, int(seconds * rate)).astype(np.float32)
        soundfile.write(tmp_path / "noise.wav", y, rate, subtype="FLOAT")
        whole = load_audio(tmp_path / "noise.wav")
        windows = list(iter_windows(tmp_path / "noise.wav", 10))
        assert windows[0][0] == 0
        assert windows[-1][1] == pytest.approx(seconds, abs=0.01)
        if seconds < 11:
            assert len(windows) == 1
        for before, after in zip(windows, windows[1:], strict=False):
            assert after[0] <= before[1]
        for start, end, part in windows:
            assert end - start == pytest.approx(len(part) / SAMPLE_RATE)
            first = round(start * SAMPLE_RATE)
            there = whole[first : first + len(part)]
            np.testing.assert_allclose(part[: len(there)], there, atol=2e-3)

    @pytest.mark.parametrize(
        ("recording", "sentence"),
        [
            (b"", "the recording: empty"),
            (b"no sound" * 999, "the recording: not readable"),
            ((np.zeros(100), 22050), "the recording: 0.00 s long"),
            ((np.full(44100, np.nan), 22050), "not numbers"),
            ("missing.mp3", "missing.mp3: no such file"),
        ],
    )
    def test_something_else_than_a_recording_gets_a_sentence(self, recording, sentence):
        with pytest.raises(AudioError, match=sentence):
            list(iter_windows(recording, 30))

    def test_integers_are_scaled_as_files_are(self, tmp_path, write_song):
        y, rate = soundfile.read(write_song(tmp_path / "song.wav", seconds=3), dtype="int16")
        ((_, _, by_array),) = iter_windows((y, rate), 30)
        ((_, _, by_file),) = iter_windows(tmp_path / "song.wav", 30)
        np.testing.assert_allclose(by_array, by_file, atol=1e-4)

    def test_a_header_of_a_hundred_hours_on_a_small_file_raises(self, tmp_path, write_song):
        file = write_song(tmp_path / "song.wav", seconds=2)
        head = bytearray(file.read_bytes()[:1000])
        head[4:8] = (2**31).to_bytes(4, "little")
        head[40:44] = (2**31 - 36).to_bytes(4, "little")
        for recording in (bytes(head), file):
            file.write_bytes(head)
            with pytest.raises(AudioError, match="truncated|0.0. s long"):
                list(iter_windows(recording, 30))

    def test_a_flac_that_is_shorter_than_its_header_states_raises(self, tmp_path, write_song):
        content = bytearray(write_song(tmp_path / "song.flac", seconds=5).read_bytes())
        content[21] |= 0x0F  # the first four of the 36 bits that count the samples
        (tmp_path / "song.flac").write_bytes(content)
        for recording in (bytes(content), tmp_path / "song.flac"):
            with pytest.raises(AudioError, match="truncated|damaged"):
                list(iter_windows(recording, 30))


def test_16_bit_samples_are_those_of_libsndfile(tmp_path):
    rng = np.random.default_rng(0)
    samples = rng.integers(-(2**15), 2**15, (3 * SAMPLE_RATE, 2), dtype=np.int16)
    for suffix in ("wav", "flac", "au"):
        soundfile.write(tmp_path / f"song.{suffix}", samples, SAMPLE_RATE, subtype="PCM_16")
        theirs, _ = soundfile.read(tmp_path / f"song.{suffix}", dtype="float32")
        np.testing.assert_array_equal(
            load_audio(tmp_path / f"song.{suffix}"), theirs.mean(axis=1, dtype=np.float32)
        )


def test_a_player_of_a_short_song_plays_all_of_it(tmp_path, write_song):
    song = write_song(tmp_path / "short.wav", seconds=6)
    for recording in (song, (load_audio(song), 22050)):
        heard = load_audio_bytes(play(recording, start=10, seconds=4).data)
        assert len(heard) == pytest.approx(4 * 22050, abs=3000)


def load_audio_bytes(sound):
    return soundfile.read(io.BytesIO(sound))[0]
