import json
import os
import resource
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings, strategies as st
from PIL import Image

from melgenre.data.audio import SAMPLE_RATE, load_audio
from melgenre.data.collection import find_tracks
from melgenre.data.mel_settings import (
    ImageError,
    MelSettings,
    check_image,
    load_settings,
)
from melgenre.features.images import extract_melspectrograms, load_center
from melgenre.features.melspectrogram import (
    fix_length,
    log_melspectrogram,
    mel_filterbank,
    melspectrogram_image,
)
from melgenre.inference.batch import find_audio_files


def test_a_clip_is_a_image_of_128_by_387():
    image = melspectrogram_image(np.random.default_rng(0).normal(size=30 * SAMPLE_RATE))
    assert image.shape == (128, 387) == (MelSettings().n_mels, MelSettings().columns)
    assert image.dtype == np.uint8
    assert image.max() == 255


def test_high_notes_stand_above_low_ones():
    t = np.arange(30 * SAMPLE_RATE) / SAMPLE_RATE
    low, high = (melspectrogram_image(np.sin(2 * np.pi * f * t)) for f in (200, 5000))
    assert high.sum(axis=1).argmax() < low.sum(axis=1).argmax()


@settings(max_examples=20)
@given(gain=st.floats(1e-3, 1e3))
def test_loudness_changes_nothing(gain):
    y = np.random.default_rng(1).normal(size=30 * SAMPLE_RATE).astype(np.float32)
    louder = melspectrogram_image(np.float32(gain) * y).astype(int)
    assert np.abs(louder - melspectrogram_image(y)).max() <= 1


def test_silence_is_black():
    assert (melspectrogram_image(np.zeros(30 * SAMPLE_RATE)) == 0).all()
    assert (log_melspectrogram(np.zeros(SAMPLE_RATE)) == -80).all()


@settings(max_examples=30)
@given(seconds=st.floats(0.5, 100))
def test_every_length_becomes_a_clip(seconds):
    y = np.arange(int(seconds * SAMPLE_RATE))
    clip = fix_length(y)
    assert len(clip) == MelSettings().samples
    if len(y) < len(clip):
        np.testing.assert_array_equal(clip, np.resize(y, len(clip)))
    else:  # its middle, to within a column
        before, after = clip[0], y[-1] - clip[-1]
        assert abs(before - after) <= 2 * MelSettings().hop_length


def test_a_long_songs_clip_is_read_from_its_middle(tmp_path):
    t = np.arange(90 * 8000) / 8000
    song = np.where((t > 30) & (t < 60), np.sin(2 * np.pi * 1000 * t), 0)
    soundfile.write(tmp_path / "song.wav", song, 8000)
    image = melspectrogram_image(load_center(tmp_path / "song.wav"))
    assert (image.max(axis=0) > 200).mean() > 0.95


def test_real_clips_give_the_images_that_were_made_earlier(gtzan, tmp_path):
    tracks = find_tracks(gtzan).dropna(subset=["path", "image"])
    earlier = tracks["image"].tolist()
    ours = extract_melspectrograms(tracks.assign(image=None), tmp_path, progress=False)
    assert ours["track_id"].tolist() == tracks["track_id"].tolist()
    correlations = []
    for track, old in zip(ours.itertuples(), earlier, strict=True):
        new, old = (np.asarray(Image.open(p), dtype=float) for p in (track.image, old))
        assert new.shape == old.shape == (128, 387)
        if abs(soundfile.info(track.path).frames - MelSettings().samples) < SAMPLE_RATE / 20:
            correlations.append(np.corrcoef(new.ravel(), old.ravel())[0, 1])
        else:
            # The earlier image squeezes all of a longer clip into its columns. The nearest
            # columns of ours are off by up to half a hop, so these agree less closely.
            whole = np.flipud(log_melspectrogram(load_audio(track.path)))
            whole = whole[:, np.rint(np.linspace(0, whole.shape[1] - 1, 387)).astype(int)]
            assert np.corrcoef(whole.ravel(), old.ravel())[0, 1] > 0.8
    assert len(correlations) >= 60
    assert np.median(correlations) >= 0.97
    assert min(correlations) >= 0.92


@pytest.fixture
def small(tmp_path, write_song):
    """Three readable songs and three broken files."""
    folder = tmp_path / "music"
    for name in ("jazz/a.wav", "jazz/b.flac", "rock/c d'é.ogg"):
        write_song(folder / name, seconds=31)
    (folder / "rock" / "empty.wav").write_bytes(b"")
    (folder / "rock" / "text.mp3").write_text("no song" * 99)
    cut = write_song(folder / "rock" / "cut.wav")
    cut.write_bytes(cut.read_bytes()[:5000])
    return find_tracks(folder)


def test_broken_files_are_skipped_counted_and_listed(small, tmp_path, capsys):
    tracks = extract_melspectrograms(small, tmp_path / "images", progress=False)
    assert tracks["track_id"].tolist() == ["jazz/a", "jazz/b", "rock/c d'é"]
    for image in tracks["image"]:
        check_image(image)
    told = capsys.readouterr().out
    assert "3 of 6 tracks skipped" in told
    assert all(name in told for name in ("empty.wav: empty", "text.mp3: not", "cut.wav: truncated"))


@pytest.mark.parametrize("name", ["長" * 83 + ".mp3", "n" * 252 + ".au", "n" * 250 + ".flac"])
def test_a_song_may_have_as_long_a_name_as_there_is(tmp_path, write_song, name):
    write_song(tmp_path / "music" / "jazz" / name, seconds=2)
    made = extract_melspectrograms(find_tracks(tmp_path / "music"), tmp_path / "p", progress=False)
    assert Path(made["image"].iloc[0]).exists()


def made_anew(tracks, folder, images):
    """Which images a further extraction makes again."""
    for image in images:
        os.utime(image, (2e9, 2e9))
    extract_melspectrograms(tracks, folder, progress=False)
    return [image.stat().st_mtime != 2e9 for image in images]


def test_only_what_is_missing_or_has_another_source_is_made(small, tmp_path, write_song):
    small, folder = small.head(3), tmp_path / "images"
    images = [Path(p) for p in extract_melspectrograms(small, folder)["image"]]
    assert load_settings(folder) == MelSettings()
    assert made_anew(small, folder, images) == [False, False, False]
    images[0].unlink()
    write_song(Path(small["path"][1]), seconds=32)
    os.utime(small["path"][1], (1e9, 1e9))  # another recording, with an older date
    extract_melspectrograms(small, folder, progress=False)
    assert made_anew(small, folder, images) == [False, False, False]
    os.utime(small["path"][2], (3e9, 3e9))  # a clock in the future
    assert made_anew(small, folder, images) == [False, False, True]
    assert made_anew(small, folder, images) == [False, False, False]
    assert not list(folder.rglob(".*")), "no temporary file is left"


def test_folders_of_one_name_do_not_share_images(small, tmp_path, write_song):
    folder = tmp_path / "images"
    first = extract_melspectrograms(small.head(1), folder, progress=False)
    before = Path(first["image"][0]).read_bytes()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 31 * 22050)
    other = tmp_path / "other" / "music" / "jazz" / "a.wav"
    other.parent.mkdir(parents=True)
    soundfile.write(other, noise, 22050)
    second = extract_melspectrograms(find_tracks(other.parents[1]), folder, progress=False)
    assert second["image"][0] == first["image"][0]
    assert Path(second["image"][0]).read_bytes() != before
    third = extract_melspectrograms(small.head(1), folder, progress=False)
    assert Path(third["image"][0]).read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"jazz/a.png": 3}', "\0"])
def test_damaged_records_of_sources_make_the_images_again(small, tmp_path, content):
    folder = tmp_path / "images"
    made = extract_melspectrograms(small.head(1), folder, progress=False)
    images = [Path(made["image"][0])]
    (folder / "sources.json").write_text(content)
    assert made_anew(small.head(1), folder, images) == [True]
    assert made_anew(small.head(1), folder, images) == [False]


def test_a_set_of_images_may_be_read_only(small, tmp_path):
    folder = tmp_path / "images"
    made = extract_melspectrograms(small.head(2), folder, progress=False)
    with pytest.MonkeyPatch.context() as patch:  # permissions do not bind root
        patch.setattr("os.replace", lambda *_: 1 / 0)
        again = extract_melspectrograms(small.head(2), folder, progress=False)
    pd.testing.assert_frame_equal(made, again)


def test_two_processes_fill_one_folder(music, tmp_path):
    tracks = find_tracks(music).head(10)
    with ThreadPoolExecutor(2) as pool:
        both = list(
            pool.map(
                lambda some: extract_melspectrograms(some, tmp_path / "both", progress=False),
                (tracks.head(8), tracks.tail(8)),
            )
        )
    assert [len(made) for made in both] == [8, 8]
    alone = extract_melspectrograms(tracks, tmp_path / "alone", progress=False)
    for image in alone["image"]:
        other = tmp_path / "both" / Path(image).relative_to(tmp_path / "alone")
        assert other.read_bytes() == Path(image).read_bytes()
    assert len(json.loads((tmp_path / "both" / "sources.json").read_text())) == 10


def test_images_made_earlier_are_kept(small, tmp_path):
    first = extract_melspectrograms(small.head(2), tmp_path / "one", progress=False)
    second = extract_melspectrograms(first, tmp_path / "two", progress=False)
    pd.testing.assert_frame_equal(first, second)


def test_many_workers_and_one_make_the_same_bytes(music, tmp_path):
    tracks = find_tracks(music).head(12)
    many = extract_melspectrograms(tracks, tmp_path / "many", progress=False)
    one = pd.concat(
        extract_melspectrograms(tracks.iloc[[i]], tmp_path / "one", progress=False)
        for i in range(len(tracks))
    )
    for a, b in zip(many["image"], one["image"], strict=True):
        assert Path(a).read_bytes() == Path(b).read_bytes()


def test_of_a_messy_folder_every_song_that_can_be_read_becomes_a_image(
    messy_music, tmp_path, capfd
):
    songs = find_audio_files(messy_music)
    tracks = pd.DataFrame({
        "track_id": [f"track/{number}" for number in range(len(songs))],
        "genre": [song.relative_to(messy_music).parts[0] for song in songs],
        "path": [str(song) for song in songs],
    })  # fmt: skip
    made = extract_melspectrograms(tracks, tmp_path / "images", progress=False)
    assert len(made) == 36 + 1
    out, err = capfd.readouterr()
    assert "3 of 40 tracks skipped" in out
    assert "\n  Шансон/Алла/First album/cut off.mp3: truncated or damaged" in out
    assert "\n  Jazz/Miles O'Hara/First album/empty.wav: empty file" in out
    assert "\n  Jazz/Miles O'Hara/First album/text.mp3: not readable as sound (it is text)" in out
    assert "mpg123" not in err


def test_a_folder_of_other_settings_is_not_mixed(small, tmp_path):
    folder = tmp_path / "images"
    extract_melspectrograms(small.head(1), folder, progress=False)
    with pytest.raises(ImageError, match="hop_length 1711 there, 512 here"):
        extract_melspectrograms(small, folder, settings=MelSettings(hop_length=512))
    assert json.loads((folder / "mel_settings.json").read_text())["hop_length"] == 1711


def test_a_image_of_other_settings_or_none_is_told(tmp_path):
    Image.new("L", (1292, 128)).save(tmp_path / "wide.png")
    with pytest.raises(ImageError, match="wide.png: 1292 x 128"):
        check_image(tmp_path / "wide.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError, match="text.png: not readable"):
        check_image(tmp_path / "text.png")


def png(width, height, depth=8, colour=0):
    """A PNG whose header announces so many pixels, of which none is there."""
    chunks = b""
    for kind, content in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ):
        whole = kind + content
        chunks += struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("size", [(10_000, 10_000), (40_000, 40_000), (2**31 - 1, 2**31 - 1)])
def test_a_image_of_absurd_size_is_refused_by_its_header(tmp_path, size, recwarn):
    (tmp_path / "bomb.png").write_bytes(png(*size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="bomb.png: "):
        check_image(tmp_path / "bomb.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    assert not recwarn.list


@pytest.mark.parametrize("format", ["JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP"])
def test_only_png_is_opened_under_its_name(tmp_path, format):
    Image.new("L", (387, 128)).save(tmp_path / "a.png", format=format)
    with pytest.raises(ImageError, match="a.png: not readable"):
        check_image(tmp_path / "a.png")


def test_a_damaged_image_is_told(tmp_path):
    Image.new("L", (387, 128)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for end in range(0, 41):
        (tmp_path / "a.png").write_bytes(whole[:end])
        with pytest.raises(ImageError, match="a.png: not readable"):
            check_image(tmp_path / "a.png")
    with pytest.raises(ImageError, match="not readable"):
        check_image(tmp_path)


DAMAGED_SETTINGS = [
    '{"n_fft": "2048"}', '{"n_fft": 2048.5}', '{"n_fft": true}', '{"n_fft": 15}', '{"n_fft": 257}',
    '{"n_fft": 65537}', '{"n_mels": 0}', '{"n_mels": 1025}', '{"n_mels": 1e400}',
    '{"hop_length": 0}', '{"hop_length": -1}', '{"hop_length": 32769}', '{"sample_rate": 999}',
    '{"sample_rate": 768001}', '{"duration": NaN}', '{"duration": Infinity}', '{"duration": 0.05}',
    '{"duration": 601}', '{"top_db": 0}', '{"top_db": null}', '{"top_db": [80]}',
    '{"n_fft": 65536, "hop_length": 100}',
    '{"n_mels": 1024, "n_fft": 65536}', '{"hop_length": 1}', '{"duration": 600, "hop_length": 200}',
    '{"duration": 600, "sample_rate": 768000, "hop_length": 32768}', '{"unknown": 1}', "[1]", "1",
    "null", '"text"', "", "{", '{"n_fft": ' + "9" * 5000 + "}", "[" * 100_000, " " * 10_000_001,
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED_SETTINGS, ids=lambda content: content[:40])
def test_settings_that_no_image_can_have_are_told(tmp_path, content):
    (tmp_path / "mel_settings.json").write_text(content)
    with pytest.raises(ImageError, match="mel_settings.json .* is damaged"):
        load_settings(tmp_path)


def test_settings_that_are_not_utf_8_or_no_file_are_told(tmp_path):
    (tmp_path / "mel_settings.json").write_bytes(b'{"n_f\xfft": 2048}')
    with pytest.raises(ImageError, match="is damaged"):
        load_settings(tmp_path)
    (tmp_path / "mel_settings.json").unlink()
    assert load_settings(tmp_path) is None
    (tmp_path / "mel_settings.json").mkdir()
    with pytest.raises(ImageError, match="is damaged"):
        load_settings(tmp_path)


def test_a_image_is_checked_against_the_settings_beside_it(tmp_path):
    (tmp_path / "jazz").mkdir()
    image = tmp_path / "jazz" / "a.png"
    Image.new("L", (387, 128)).save(image)
    check_image(image)
    (tmp_path / "mel_settings.json").write_text(json.dumps({"n_fft": 1024}))
    with pytest.raises(ImageError, match="a.png was made with other settings .n_fft 1024 there"):
        check_image(image)
    (tmp_path / "mel_settings.json").write_text("{")
    with pytest.raises(ImageError, match="damaged"):
        check_image(image)


def test_a_collection_of_nothing_readable_gets_a_sentence(small, tmp_path):
    with pytest.raises(ImageError, match="No track could"):
        extract_melspectrograms(small.iloc[3:], tmp_path / "images", progress=False)


@given(
    sample_rate=st.integers(1000, 96_000), log_n_fft=st.integers(6, 12), n_mels=st.integers(2, 200)
)
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_mel_filters_are_librosas(sample_rate, log_n_fft, n_mels):
    ours = mel_filterbank(MelSettings(sample_rate=sample_rate, n_fft=2**log_n_fft, n_mels=n_mels))
    ours = ours.toarray()
    theirs = librosa.filters.mel(sr=sample_rate, n_fft=2**log_n_fft, n_mels=n_mels)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [MelSettings(), MelSettings(n_fft=1024, hop_length=500, n_mels=64, top_db=60, duration=2)],
)
def test_images_are_librosas_to_within_a_grey_level(music, settings):
    rng = np.random.default_rng(0)
    sounds = [load_audio(path) for path in sorted(music.rglob("*.wav"))[::7]]
    sounds += [rng.normal(0, 0.1, 9 * SAMPLE_RATE).astype(np.float32), np.ones(22050, np.float32)]
    for y in sounds:
        y = fix_length(y, settings)
        power = librosa.feature.melspectrogram(
            y=y, sr=settings.sample_rate, n_fft=settings.n_fft, hop_length=settings.hop_length,
            n_mels=settings.n_mels,
        )  # fmt: skip
        decibels = librosa.power_to_db(power, ref=np.max, top_db=settings.top_db)
        expected = np.rint((np.flipud(decibels) / settings.top_db + 1) * 255)
        assert np.abs(melspectrogram_image(y, settings) - expected).max() <= 1


def test_images_are_the_same_whatever_the_number_of_workers(small, tmp_path, monkeypatch):
    one = extract_melspectrograms(small, tmp_path / "one", progress=False)
    monkeypatch.setattr("melgenre.parallel.MIN_PARALLEL", 0)
    other = extract_melspectrograms(small, tmp_path / "other", progress=False)
    for a, b in zip(one["image"], other["image"], strict=True):
        assert Path(a).read_bytes() == Path(b).read_bytes()
