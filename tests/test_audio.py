import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from melgenre.audio import (
    SAMPLE_RATE,
    AudioError,
    audio_duration,
    cut_windows,
    load_audio,
    play,
)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "au", "aiff"])
@pytest.mark.parametrize("rate, channels", [(22050, 1), (44100, 2), (48000, 1)])
def test_every_common_format_becomes_mono_at_one_rate(tmp_path, write_song, suffix, rate, channels):
    y = load_audio(write_song(tmp_path / f"song.{suffix}", 3, rate, channels))
    assert y.dtype == np.float32
    assert y.ndim == 1
    assert abs(len(y) / SAMPLE_RATE - 3) < 0.1
    assert 0.3 < np.abs(y).max() < 1
    # The chord is still there: its three notes stand far above everything else.
    spectrum = np.abs(np.fft.rfft(y * np.hanning(len(y))))
    peaks = np.fft.rfftfreq(len(y), 1 / SAMPLE_RATE)[spectrum > 0.5 * spectrum.max()]
    assert {220, 277, 330} == {round(peak) for peak in peaks}


def test_six_channels_are_averaged(tmp_path, write_song):
    song = write_song(tmp_path / "surround.wav", channels=6)
    np.testing.assert_allclose(
        load_audio(song), load_audio(write_song(tmp_path / "mono.wav")), atol=1e-4
    )


@settings(max_examples=25)
@given(offset=st.floats(0, 3), duration=st.floats(1, 5))
def test_a_piece_is_the_same_as_cut_from_the_whole(tmp_path_factory, offset, duration):
    song = tmp_path_factory.getbasetemp() / "piece.wav"
    if not song.exists():
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * SAMPLE_RATE)
        soundfile.write(song, noise, SAMPLE_RATE)
    start = int(offset * SAMPLE_RATE)
    whole = load_audio(song)[start : start + round(duration * SAMPLE_RATE)]
    np.testing.assert_array_equal(load_audio(song, offset=offset, duration=duration), whole)


def truncated(path, write_song):
    song = write_song(path.with_suffix(".wav"))
    song.write_bytes(song.read_bytes()[: song.stat().st_size // 2])
    return song


def truncated_au(path, write_song):
    song = write_song(path.with_suffix(".au"))
    song.write_bytes(song.read_bytes()[:9000])
    return song


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
        (truncated_flac, "not readable|truncated"),
        (not_a_number, "no numbers"),
        (a_text, "not readable as sound"),
        (a_hundred_hours, "truncated"),
        (too_short, "0.10 s long"),
        (empty, "empty"),
        (a_zip, "not readable as sound"),
        (missing, "no such file"),
        (a_folder, "no such file"),
    ],
)
def test_what_cannot_be_used_gets_a_sentence_that_names_it(tmp_path, write_song, broken, cause):
    song = broken(tmp_path / "song.mp3", write_song)
    with pytest.raises(AudioError, match=cause) as told:
        load_audio(song)
    assert str(told.value).startswith(song.name)
    assert str(tmp_path) not in str(told.value), "a sentence names no folder of anybody's machine"


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
        windows = list(cut_windows(tmp_path / "noise.wav", 10))
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

    def test_what_libsndfile_does_not_read_is_read_by_pyav(self, tmp_path, write_song):
        av = pytest.importorskip("av")
        y, rate = soundfile.read(write_song(tmp_path / "song.wav", seconds=12), dtype="int16")
        with av.open(str(tmp_path / "song.m4a"), "w") as container:
            stream = container.add_stream("aac", rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray(y[None], format="s16", layout="mono")
            frame.sample_rate = rate
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
        for recording in (tmp_path / "song.m4a", (tmp_path / "song.m4a").read_bytes()):
            ((start, end, part),) = cut_windows(recording, 30)
            assert (start, end) == (0, pytest.approx(12, abs=0.15))
            assert np.abs(part).max() == pytest.approx(np.abs(y).max() / 2**15, abs=0.1)

    @pytest.mark.parametrize(
        ("recording", "sentence"),
        [
            (b"", "the recording: not readable"),
            (b"no sound" * 999, "the recording: not readable"),
            ((np.zeros(100), 22050), "the recording: 0.00 s long"),
            ((np.full(44100, np.nan), 22050), "no numbers"),
            ("missing.mp3", "missing.mp3: no such file"),
        ],
    )
    def test_what_is_no_recording_gets_a_sentence(self, recording, sentence):
        with pytest.raises(AudioError, match=sentence):
            list(cut_windows(recording, 30))

    def test_integers_are_scaled_as_files_are(self, tmp_path, write_song):
        y, rate = soundfile.read(write_song(tmp_path / "song.wav", seconds=3), dtype="int16")
        ((_, _, by_array),) = cut_windows((y, rate), 30)
        ((_, _, by_file),) = cut_windows(tmp_path / "song.wav", 30)
        np.testing.assert_allclose(by_array, by_file, atol=1e-4)

    def test_a_header_of_a_hundred_hours_on_a_small_file_is_told(self, tmp_path, write_song):
        file = write_song(tmp_path / "song.wav", seconds=2)
        head = bytearray(file.read_bytes()[:1000])
        head[4:8] = (2**31).to_bytes(4, "little")
        head[40:44] = (2**31 - 36).to_bytes(4, "little")
        for recording in (bytes(head), file):
            file.write_bytes(head)
            with pytest.raises(AudioError, match="truncated|0.0. s long"):
                list(cut_windows(recording, 30))

    def test_a_flac_that_is_shorter_than_its_header_says_is_told(self, tmp_path, write_song):
        content = bytearray(write_song(tmp_path / "song.flac", seconds=5).read_bytes())
        content[21] |= 0x0F  # the first four of the 36 bits that count the samples
        (tmp_path / "song.flac").write_bytes(content)
        for recording in (bytes(content), tmp_path / "song.flac"):
            with pytest.raises(AudioError, match="truncated|not readable"):
                list(cut_windows(recording, 30))


def test_16_bit_samples_are_what_libsndfile_makes_of_them(tmp_path):
    rng = np.random.default_rng(0)
    samples = rng.integers(-(2**15), 2**15, (3 * SAMPLE_RATE, 2), dtype=np.int16)
    for suffix in ("wav", "flac", "au"):
        soundfile.write(tmp_path / f"song.{suffix}", samples, SAMPLE_RATE, subtype="PCM_16")
        theirs, _ = soundfile.read(tmp_path / f"song.{suffix}", dtype="float32")
        np.testing.assert_array_equal(
            load_audio(tmp_path / f"song.{suffix}"), theirs.mean(axis=1, dtype=np.float32)
        )


def test_a_player_of_a_short_song_plays_what_is_there(tmp_path, write_song):
    song = write_song(tmp_path / "short.wav", seconds=6)
    for recording in (song, (load_audio(song), 22050)):
        heard = load_audio_bytes(play(recording, start=10, seconds=4).data)
        assert len(heard) == pytest.approx(4 * 22050, abs=3000)


def load_audio_bytes(sound):
    return soundfile.read(io.BytesIO(sound))[0]
