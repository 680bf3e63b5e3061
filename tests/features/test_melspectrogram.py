import json
import os
import re
import resource
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
    image_settings,
    load_settings,
)
from melgenre.errors import MelgenreWarning
from melgenre.features.images import extract_melspectrograms, images_folder, load_center
from melgenre.features.melspectrogram import (
    fix_length,
    log_melspectrogram,
    mel_filterbank,
    melspectrogram_image,
)
from melgenre.inference.songs import find_audio_files
from melgenre.parallel import parallel_map


def test_a_clip_is_an_image_of_128_by_387():
    image = melspectrogram_image(np.random.default_rng(0).normal(size=30 * SAMPLE_RATE))
    assert image.shape == (128, 387) == (MelSettings().n_mels, MelSettings().columns)
    assert image.dtype == np.uint8
    assert image.max() == 255


def test_high_notes_are_above_low_ones():
    t = np.arange(30 * SAMPLE_RATE) / SAMPLE_RATE
    low, high = (melspectrogram_image(np.sin(2 * np.pi * f * t)) for f in (200, 5000))
    assert high.sum(axis=1).argmax() < low.sum(axis=1).argmax()


@settings(max_examples=20)
@given(gain=st.floats(1e-3, 1e3))
def test_the_image_does_not_depend_on_loudness(gain):
    y = np.random.default_rng(1).normal(size=30 * SAMPLE_RATE).astype(np.float32)
    louder = melspectrogram_image(np.float32(gain) * y).astype(int)
    assert np.abs(louder - melspectrogram_image(y)).max() <= 1


def test_silence_is_black():
    assert (melspectrogram_image(np.zeros(30 * SAMPLE_RATE)) == 0).all()
    assert (log_melspectrogram(np.zeros(SAMPLE_RATE)) == -80).all()


@settings(max_examples=30)
@given(seconds=st.floats(0.5, 100))
def test_any_length_becomes_the_length_of_a_clip(seconds):
    y = np.arange(int(seconds * SAMPLE_RATE))
    clip = fix_length(y)
    assert len(clip) == MelSettings().samples
    if len(y) < len(clip):
        np.testing.assert_array_equal(clip, np.resize(y, len(clip)))
    else:  # its middle, to within a column
        before, after = clip[0], y[-1] - clip[-1]
        assert abs(before - after) <= 2 * MelSettings().hop_length


def test_the_clip_of_a_long_song_is_its_middle(tmp_path):
    t = np.arange(90 * 8000) / 8000
    song = np.where((t > 30) & (t < 60), np.sin(2 * np.pi * 1000 * t), 0)
    soundfile.write(tmp_path / "song.wav", song, 8000)
    image = melspectrogram_image(load_center(tmp_path / "song.wav"))
    assert (image.max(axis=0) > 200).mean() > 0.95


@pytest.mark.slow
def test_images_of_real_clips_agree_with_those_of_the_original_project(gtzan, tmp_path):
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


def test_unreadable_files_are_skipped_and_named_in_one_warning(small, tmp_path, capsys):
    with pytest.warns(MelgenreWarning) as warned:
        tracks = extract_melspectrograms(small, tmp_path / "images", progress=False)
    assert tracks["track_id"].tolist() == ["jazz/a", "jazz/b", "rock/c d'é"]
    for image in tracks["image"]:
        check_image(image)
    assert len(warned) == 1
    sentence = str(warned[0].message)
    assert sentence.startswith("3 of 6 tracks skipped: ")
    for name, reason in (("empty", "empty"), ("text.mp3", "not"), ("cut", "truncated")):
        assert re.search(f"{name}.*: {reason}", sentence)
    assert [name for name, _ in tracks.attrs["skipped"]] == [
        "rock/cut.wav", "rock/empty.wav", "rock/text.mp3"
    ]  # fmt: skip
    assert dict(tracks.attrs["skipped"])["rock/empty.wav"].startswith("empty file")
    assert not capsys.readouterr().out


def test_of_many_skipped_files_the_warning_names_the_first(tmp_path, write_song):
    write_song(tmp_path / "music" / "jazz" / "fine.wav")
    for number in range(12):
        (tmp_path / "music" / "jazz" / f"{number:02}.wav").write_bytes(b"")
    with pytest.warns(MelgenreWarning, match="12 of 13 tracks.*/09.wav.*; and 2 others"):
        made = extract_melspectrograms(
            find_tracks(tmp_path / "music"), tmp_path / "images", progress=False
        )
    assert len(made.attrs["skipped"]) == 12


@pytest.mark.parametrize("name", ["長" * 83 + ".mp3", "n" * 252 + ".au", "n" * 250 + ".flac"])
def test_a_song_can_have_the_longest_possible_name(tmp_path, write_song, name):
    write_song(tmp_path / "music" / "jazz" / name, seconds=2)
    made = extract_melspectrograms(find_tracks(tmp_path / "music"), tmp_path / "p", progress=False)
    assert Path(made["image"].iloc[0]).exists()


def remade(tracks, folder, images):
    """For each image, whether another extraction makes it again."""
    for image in images:
        os.utime(image, (2e9, 2e9))
    extract_melspectrograms(tracks, folder, progress=False)
    return [image.stat().st_mtime != 2e9 for image in images]


def test_only_images_that_are_missing_or_have_another_source_are_made(small, tmp_path, write_song):
    small, folder = small.head(3), tmp_path / "images"
    images = [Path(p) for p in extract_melspectrograms(small, folder)["image"]]
    assert load_settings(folder) == MelSettings()
    assert remade(small, folder, images) == [False, False, False]
    images[0].unlink()
    write_song(Path(small["path"][1]), seconds=32)
    os.utime(small["path"][1], (1e9, 1e9))  # another recording, with an older date
    extract_melspectrograms(small, folder, progress=False)
    assert remade(small, folder, images) == [False, False, False]
    os.utime(small["path"][2], (3e9, 3e9))  # a clock in the future
    assert remade(small, folder, images) == [False, False, True]
    assert remade(small, folder, images) == [False, False, False]
    assert not list(folder.rglob(".*")), "no temporary file is left"


@pytest.mark.filterwarnings("ignore::melgenre.errors.MelgenreWarning")
def test_a_genre_with_a_slash_has_one_folder(small, tmp_path):
    tracks = small.assign(genre="Old-Time / Historic")
    made = extract_melspectrograms(tracks, tmp_path / "images", progress=False)
    below = [Path(one).relative_to(tmp_path / "images") for one in made["image"]]
    assert {one.parts[0] for one in below} == {"Old-Time - Historic"}
    assert set(find_tracks(tmp_path / "images")["genre"]) == {"Old-Time - Historic"}


def test_two_folders_of_the_same_name_do_not_share_images(small, tmp_path, write_song):
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


@pytest.mark.parametrize(
    "content", ["", "{", "{\n", "{\n3: 4\n}\n", "[]", '{"jazz/a.png": 3}', "\0"]
)
def test_damaged_records_of_sources_make_the_images_again(small, tmp_path, content):
    folder = tmp_path / "images"
    made = extract_melspectrograms(small.head(1), folder, progress=False)
    images = [Path(made["image"][0])]
    (folder / "sources.json").write_text(content)
    assert remade(small.head(1), folder, images) == [True]
    assert remade(small.head(1), folder, images) == [False]


@pytest.mark.parametrize("indent", [0, None, 2])
def test_records_of_sources_are_read_in_any_layout(small, tmp_path, indent):
    folder = tmp_path / "images"
    made = extract_melspectrograms(small.head(2), folder, progress=False)
    images, records = [Path(image) for image in made["image"]], folder / "sources.json"
    records.write_text(json.dumps(json.loads(records.read_text()), indent=indent))
    assert remade(small.head(2), folder, images) == [False, False]


def test_a_folder_of_images_can_be_read_only(small, tmp_path):
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


def test_ready_made_images_are_kept(small, tmp_path):
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


@pytest.mark.slow
def test_every_readable_song_of_a_messy_folder_becomes_an_image(messy_music, tmp_path, capfd):
    songs = find_audio_files(messy_music)
    tracks = pd.DataFrame({
        "track_id": [f"track/{number}" for number in range(len(songs))],
        "genre": [song.relative_to(messy_music).parts[0] for song in songs],
        "path": [str(song) for song in songs],
    })  # fmt: skip
    with pytest.warns(MelgenreWarning, match="3 of 40 tracks skipped"):
        made = extract_melspectrograms(tracks, tmp_path / "images", progress=False)
    assert len(made) == 36 + 1
    reasons = dict(made.attrs["skipped"])
    album = "Jazz/Miles O'Hara/First album"
    assert reasons["Шансон/Алла/First album/cut off.mp3"].startswith("truncated or damaged")
    assert reasons[f"{album}/empty.wav"].startswith("empty file")
    assert reasons[f"{album}/text.mp3"].startswith("not readable as sound (it is text)")
    assert "mpg123" not in capfd.readouterr().err


def test_images_of_two_settings_are_not_mixed_in_a_folder(small, tmp_path):
    folder = tmp_path / "images"
    extract_melspectrograms(small.head(1), folder, progress=False)
    with pytest.raises(ImageError, match="hop_length is 1711 there and 512 here"):
        extract_melspectrograms(small, folder, settings=MelSettings(hop_length=512))
    assert json.loads((folder / "mel_settings.json").read_text())["hop_length"] == 1711


def test_an_image_of_another_size_or_no_image_gets_a_sentence(tmp_path):
    Image.new("L", (1292, 128)).save(tmp_path / "wide.png")
    with pytest.raises(ImageError, match="wide.png: 1292 x 128"):
        check_image(tmp_path / "wide.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError, match="text.png: not readable"):
        check_image(tmp_path / "text.png")


def png(width, height, depth=8, colour=0):
    """A PNG whose header declares a size, without any pixel."""
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
def test_an_image_of_absurd_size_is_rejected_by_its_header(tmp_path, size, recwarn):
    (tmp_path / "bomb.png").write_bytes(png(*size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="bomb.png: "):
        check_image(tmp_path / "bomb.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    assert not recwarn.list


@pytest.mark.parametrize("format", ["JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP"])
def test_other_formats_under_the_name_of_a_png_are_rejected(tmp_path, format):
    Image.new("L", (387, 128)).save(tmp_path / "a.png", format=format)
    with pytest.raises(ImageError, match="a.png: not readable"):
        check_image(tmp_path / "a.png")


def test_a_damaged_image_gets_a_sentence(tmp_path):
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
def test_settings_that_no_image_can_have_get_a_sentence(tmp_path, content):
    (tmp_path / "mel_settings.json").write_text(content)
    with pytest.raises(ImageError, match="mel_settings.json .* is damaged"):
        load_settings(tmp_path)


def test_settings_that_are_not_utf_8_or_no_file_get_a_sentence(tmp_path):
    (tmp_path / "mel_settings.json").write_bytes(b'{"n_f\xfft": 2048}')
    with pytest.raises(ImageError, match="is damaged"):
        load_settings(tmp_path)
    (tmp_path / "mel_settings.json").unlink()
    assert load_settings(tmp_path) is None
    (tmp_path / "mel_settings.json").mkdir()
    with pytest.raises(ImageError, match="is damaged"):
        load_settings(tmp_path)


def test_an_image_is_checked_against_the_settings_beside_it(tmp_path):
    image = tmp_path / "jazz" / "artist" / "album" / "a.png"
    image.parent.mkdir(parents=True)
    Image.new("L", (387, 128)).save(image)
    check_image(image)
    assert image_settings(image) == MelSettings()
    (tmp_path / "mel_settings.json").write_text(json.dumps({"n_fft": 1024}))
    check_image(image)
    assert image_settings(image) == MelSettings(n_fft=1024)
    with pytest.raises(ImageError, match="a.png was made with other settings .n_fft is 1024 there"):
        check_image(image, MelSettings())
    (tmp_path / "mel_settings.json").write_text(json.dumps({"n_mels": 64}))
    with pytest.raises(ImageError, match="a.png: 387 x 128 .* give 387 x 64"):
        check_image(image)
    (tmp_path / "mel_settings.json").write_text("{")
    with pytest.raises(ImageError, match="damaged"):
        check_image(image)


OTHER = MelSettings(n_mels=64, hop_length=512)


def test_images_of_other_settings_are_a_collection_by_themselves(small, tmp_path):
    small = small.head(3)
    images = tmp_path / "images"
    made = extract_melspectrograms(small, images, settings=OTHER, progress=False)
    assert load_settings(images) == OTHER
    found = find_tracks(images)
    assert found["genre"].tolist() == small["genre"].tolist()
    assert found["image"].tolist() == made["image"].tolist()
    for image in found["image"]:
        assert image_settings(image) == OTHER
        with Image.open(image) as opened:
            assert opened.size == (OTHER.columns, 64)
    again = extract_melspectrograms(found, images, settings=OTHER, progress=False)
    assert again["image"].tolist() == made["image"].tolist()


def test_other_settings_make_new_images_from_sound(small, tmp_path):
    made = extract_melspectrograms(small.head(3), tmp_path / "default", progress=False)
    new = extract_melspectrograms(made, tmp_path / "other", settings=OTHER, progress=False)
    assert not set(new["image"]) & set(made["image"])
    assert {image_settings(image) for image in new["image"]} == {OTHER}
    assert {image_settings(image) for image in made["image"]} == {MelSettings()}


def test_without_sound_images_of_other_settings_get_a_sentence(small, tmp_path):
    made = extract_melspectrograms(small.head(3), tmp_path / "default", progress=False)
    silent = made.assign(path=made["path"].where(made["track_id"] == "jazz/a"))
    with pytest.raises(ImageError, match="2 tracks have no sound.*n_mels is 128 there and 64 here"):
        extract_melspectrograms(silent, tmp_path / "other", settings=OTHER, progress=False)


def test_the_images_of_each_settings_have_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    tracks = pd.DataFrame({"collection": ["gtzan"]})
    names = [
        images_folder(tracks, settings).name
        for settings in (MelSettings(), MelSettings(n_mels=96), OTHER, MelSettings(duration=2.5))
    ]
    assert names == ["gtzan", "gtzan-mel96", "gtzan-hop512-mel64", "gtzan-seconds2.5"]
    assert images_folder(tracks).resolve().parent == tmp_path / "data" / "images"


def test_a_collection_without_any_readable_track_gets_a_sentence(small, tmp_path):
    with pytest.raises(ImageError, match="No track could.*cut.wav: truncated"):
        extract_melspectrograms(small.iloc[3:], tmp_path / "images", progress=False)


@given(
    sample_rate=st.integers(1000, 96_000), log_n_fft=st.integers(6, 12), n_mels=st.integers(2, 200)
)
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_mel_filters_are_those_of_librosa(sample_rate, log_n_fft, n_mels):
    ours = mel_filterbank(MelSettings(sample_rate=sample_rate, n_fft=2**log_n_fft, n_mels=n_mels))
    theirs = librosa.filters.mel(sr=sample_rate, n_fft=2**log_n_fft, n_mels=n_mels)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [MelSettings(), MelSettings(n_fft=1024, hop_length=500, n_mels=64, top_db=60, duration=2)],
)
def test_images_are_those_of_librosa_to_within_a_grey_level(music, settings):
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


def test_images_do_not_depend_on_the_number_of_workers(small, tmp_path, monkeypatch):
    one = extract_melspectrograms(small.head(3), tmp_path / "one", progress=False)
    in_processes = partial(parallel_map, serial=0)
    monkeypatch.setattr("melgenre.features.images.parallel_map", in_processes)
    other = extract_melspectrograms(small.head(3), tmp_path / "other", progress=False)
    for a, b in zip(one["image"], other["image"], strict=True):
        assert Path(a).read_bytes() == Path(b).read_bytes()
