"""The made-up music: the same every time, of usual loudness, in GTZAN's layout, ten genres."""

import csv

import librosa
import numpy as np
import pytest
import soundfile

from melgenre.data.synthetic.collection import (
    CLIPS_PER_ARTIST,
    GENRES,
    make_synthetic_collection,
    render_clip,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("made") / "music"
    return make_synthetic_collection(made, clips_per_genre=3, duration=2.0, progress=False)


def wav_files(folder):
    return sorted(folder.glob("genres/*/*.wav"))


def test_ten_sorted_genres():
    assert len(set(GENRES)) == 10
    assert list(GENRES) == sorted(GENRES)
    assert all(genre.isalpha() and genre.islower() for genre in GENRES)


@pytest.mark.parametrize("genre", GENRES)
def test_same_arguments_same_samples(genre):
    clip = render_clip(genre, 3, duration=4.0)
    assert clip.dtype == np.float32 and clip.shape == (4 * 22050,)
    np.testing.assert_array_equal(clip, render_clip(genre, 3, duration=4.0))
    for other in (render_clip(genre, 2, duration=4.0), render_clip(genre, 3, duration=4.0, seed=1)):
        assert abs(np.corrcoef(clip, other)[0, 1]) < 0.5


@pytest.mark.parametrize("genre", GENRES)
@pytest.mark.parametrize("number", [0, 7])
def test_levels_are_sane(genre, number):
    clip = render_clip(genre, number, duration=6.0)
    assert np.isfinite(clip).all()
    assert 0.4 < np.abs(clip).max() <= 0.9
    assert 0.08 < np.sqrt(np.mean(clip**2)) < 0.4
    assert abs(clip.mean()) < 0.01
    # The ends fade, and no second of the music is silent.
    assert max(abs(clip[0]), abs(clip[-1])) < 0.01
    assert all(np.abs(second).max() > 0.02 for second in clip.reshape(6, -1))


@pytest.mark.parametrize("genre", GENRES)
def test_other_rates_and_durations(genre):
    clip = render_clip(genre, 1, duration=1.5, sample_rate=16000)
    assert clip.shape == (24000,) and np.isfinite(clip).all()
    assert np.isfinite(render_clip(genre, 1, duration=1.0, sample_rate=44100)).all()


def test_unknown_genre_is_a_sentence():
    with pytest.raises(ValueError, match=r"^Genre 'polka' cannot .* because .*; choose .*\.$") as e:
        render_clip("polka", 0)
    assert all(genre in str(e.value) for genre in GENRES)


def test_too_short_a_clip_is_a_sentence():
    with pytest.raises(ValueError, match=r"^A clip of 0.1 s cannot .* because .*; choose .*\.$"):
        render_clip(GENRES[0], 0, duration=0.1)


@pytest.mark.slow
def test_genres_differ_across_artists():
    """Nearest centroid on MFCC statistics recognises the genres of clips by other artists."""

    def statistics(genre, number):
        clip = render_clip(genre, number, duration=10.0)
        mfcc = librosa.feature.mfcc(y=clip, sr=22050, n_mfcc=13, hop_length=2048)
        return np.r_[mfcc.mean(1), mfcc.std(1)]

    # One clip by each of four artists; each artist in turn is held out.
    numbers = range(0, 4 * CLIPS_PER_ARTIST, CLIPS_PER_ARTIST)
    clips = np.array([[statistics(genre, number) for number in numbers] for genre in GENRES])
    right = []
    for artist in range(4):
        train = np.delete(clips, artist, axis=1)
        offset = (clips[:, artist, None] - train.mean(axis=1)) / train.std(axis=(0, 1))
        right += list(np.linalg.norm(offset, axis=-1).argmin(axis=1) == np.arange(10))
    assert np.mean(right) > 0.8


def test_layout(folder):
    expected = {f"genres/{g}/{g}.{k:05d}.wav" for g in GENRES for k in range(3)}
    expected |= {"tracks.csv", "SYNTHETIC.md"}
    # Nothing else: no temporary file is left over, hidden ones included.
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == expected
    for path in wav_files(folder):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (22050, 1, "PCM_16")
        assert info.duration == 2.0
    assert "made-up" in (folder / "SYNTHETIC.md").read_text().lower()


def test_files_hold_the_rendered_clips(folder):
    wave, _ = soundfile.read(wav_files(folder)[-1])
    np.testing.assert_allclose(wave, render_clip(GENRES[-1], 2, duration=2.0), atol=1e-4)


def test_tracks_table(folder):
    with (folder / "tracks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["track_id"] for row in rows] == [path.stem for path in wav_files(folder)]
    for row in rows:
        genre, number = row["track_id"].split(".")
        assert row["genre"] == genre
        assert row["artist_id"] == f"{genre}-artist-{int(number) // CLIPS_PER_ARTIST}"


def test_an_interrupted_call_resumes(folder):
    lost, *kept = wav_files(folder)
    content = lost.read_bytes()
    times = [path.stat().st_mtime_ns for path in kept]
    lost.unlink()
    again = make_synthetic_collection(folder, clips_per_genre=3, duration=2.0, progress=False)
    assert again == folder
    assert lost.read_bytes() == content
    assert [path.stat().st_mtime_ns for path in kept] == times
    make_synthetic_collection(folder, clips_per_genre=3, duration=2.0, progress=False)
    assert [path.stat().st_mtime_ns for path in kept] == times
