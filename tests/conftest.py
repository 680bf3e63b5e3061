"""Shared fixtures: a small synthetic collection, and real GTZAN if it is available."""

import io
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import hypothesis
import matplotlib.pyplot as plt
import numpy as np
import pytest
import soundfile
from fastai.torch_core import defaults
from PIL import Image

from melgenre.data.collection import find_tracks
from melgenre.data.splits import group_split
from melgenre.data.synthetic.collection import make_synthetic_collection
from melgenre.features.images import extract_melspectrograms
from melgenre.training import calibration
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.export import export_learner
from melgenre.training.fit import fit
from melgenre.training.learner import genre_learner, predict_tracks

ROOT = Path(__file__).resolve().parent.parent

# A fake of google.colab: only processes that have tests/colab on their path can import it.
collect_ignore = ["colab"]

# All tests run on the CPU, even if there is a GPU, except for those of test_devices.py.
defaults.use_cuda = False

# No time limit for the examples of hypothesis: a busy machine must not fail a test.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def close_figures():
    """Close all figures after a test: fastai plots into the current axes."""
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def gtzan():
    """A folder with real clips of GTZAN. Without it, the tests that need it are skipped."""
    folder = Path(os.environ.get("MELGENRE_DATA", ROOT.parent / "shared" / "gtzan"))
    if not (folder / "tracks.csv").exists():
        pytest.skip("needs real clips of GTZAN: set MELGENRE_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def music(tmp_path_factory):
    """A folder of synthetic music: ten genres with four clips by two artists each."""
    folder = tmp_path_factory.mktemp("music") / "made-up"
    return make_synthetic_collection(folder, clips_per_genre=4, progress=False)


@pytest.fixture(scope="session")
def images(music, tmp_path_factory):
    """The tracks of the synthetic music, with images and an artist-filtered split."""
    folder = tmp_path_factory.mktemp("images")
    tracks = extract_melspectrograms(find_tracks(music), folder, progress=False)
    return group_split(tracks)


@pytest.fixture(scope="session")
def learner(images, tmp_path_factory):
    """A small network after a short training. It runs, but is not accurate."""
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:4])]
    learn = genre_learner(image_dataloaders(few), "resnet18", "smoke-test", pretrained=False)
    with pytest.MonkeyPatch.context() as patch, learn.no_bar(), learn.no_logging():
        # Not the checkpoint of an earlier, interrupted run of the tests.
        patch.setenv("MELGENRE_HOME", str(tmp_path_factory.mktemp("home")))
        fit(learn)
    # A prediction clears fastai's recorder, so the losses are kept here.
    learn.training_losses = [float(epoch[0]) for epoch in learn.recorder.values]
    return learn


def run_of(learn, predictions=None, **changes):
    """The run of a learner, with predictions of its held-out tracks and an invented result."""
    result = {"protocol": "artist-split", "accuracy": 0.5, "interval": [0.3, 0.7], "tracks": 8}
    if predictions is None:
        predictions = predict_tracks(learn, learn.dls.valid_ds.items.reset_index(drop=True))
    changes = {"result": result, **changes}
    return replace(learn.training_run, learner=learn, predictions=predictions, **changes)


@pytest.fixture(scope="session")
def exported(learner, tmp_path_factory):
    """The model folder of `learner`."""
    folder = tmp_path_factory.mktemp("models") / "small"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "FEWEST_CLIPS", 8)  # the number of held-out clips
        return export_learner(run_of(learner), folder)


@pytest.fixture
def write_song():
    """A function that writes a chord to a file, in the format of its suffix."""

    def write(path, seconds=2.0, rate=22050, channels=1, subtype=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        t = np.arange(int(seconds * rate)) / rate
        chord = sum(np.sin(2 * np.pi * f * t) for f in (220, 277, 330)) / 4
        suffix = path.suffix[1:].lower()
        format = {"au": "AU", "oga": "OGG", "opus": "OGG", "aif": "AIFF"}.get(suffix)
        if suffix == "opus":
            subtype = "OPUS"
        soundfile.write(path, np.tile(chord, (channels, 1)).T, rate, subtype=subtype, format=format)
        return path

    return write


@pytest.fixture(scope="module")
def chromium():
    """A running Chromium: Debian's, or the one that `playwright install chromium` installs."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        where = shutil.which("chromium") or shutil.which("google-chrome")
        try:
            # Without a sandbox it also runs as root, in a container; it opens only our own pages.
            browser = running.chromium.launch(executable_path=where, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium here: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page; the test fails if its console shows an error."""
    page = chromium.new_page(viewport={"width": 1400, "height": 1000})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.set_default_timeout(60_000)
    yield page
    page.close()
    ours = [error for error in errors if "favicon" not in error]
    assert not ours


MESSY_GENRES = {
    "Ambient": (110, 0.3),
    "Drum & Bass": (220, 6),
    "Jazz": (440, 2),
    "Шансон": (880, 1),
}
"""Pitch in Hz and beats per second of each genre, enough for a network to distinguish them."""

MESSY_ARTISTS = {
    "Ambient": ["Σίγμα", "Björk’s Töchter", "Ø"],
    "Drum & Bass": ['DJ "Twice"', "80% Loud", "#1"],
    "Jazz": ["Miles O'Hara", "久石", "The <b>Bold</b>"],
    "Шансон": ["Алла", "Édith & Fils", "محمد"],
}
MESSY_TITLES = ["So What", 'Don\'t "stop" 🎷', "夜の歌"]
MESSY_FORMATS = [
    ("mp3", 44100, 2), ("m4a", 48000, 2), ("ogg", 32000, 1), ("flac", 48000, 2),
    ("wav", 8000, 1), ("mp3", 22050, 1), ("m4a", 44100, 1), ("wav", 44100, 2),
]  # fmt: skip


@pytest.fixture(scope="session")
def messy_music(tmp_path_factory):
    """A messy folder of music, as users have: four genres, `<genre>/<artist>/<album>/<song>`.

    36 synthetic songs of 6 to 10 seconds, and one of five minutes: five formats, sample rates from
    8 to 48 kHz, mono and stereo, cover images, names in many alphabets. Three more files are not
    readable: `cut off.mp3`, `empty.wav` and `text.mp3`.
    """
    pytest.importorskip("av", reason="m4a needs PyAV: pip install av")
    folder = tmp_path_factory.mktemp("messy") / "my music"
    rng = np.random.default_rng(0)
    numbers = iter(range(36))
    for genre, (pitch, beat) in MESSY_GENRES.items():
        for artist in MESSY_ARTISTS[genre]:
            for title in MESSY_TITLES:
                number = next(numbers)
                suffix, rate, channels = MESSY_FORMATS[number % len(MESSY_FORMATS)]
                song = folder / genre / artist / "First album" / f"{title}.{suffix}"
                song.parent.mkdir(parents=True, exist_ok=True)
                y = synthetic_song(rng, pitch, beat, 6 + number % 5, rate, channels)
                _write_messy(song, y, rate, cover=number % 3 == 0)
    album = folder / "Jazz" / "Miles O'Hara" / "First album"
    y = np.tile(synthetic_song(rng, *MESSY_GENRES["Jazz"], 10, 22050, 1), (30, 1))
    soundfile.write(album / "Five minutes.mp3", y, 22050)
    cut = (album / "Five minutes.mp3").read_bytes()[:50_000]
    (folder / "Шансон" / "Алла" / "First album" / "cut off.mp3").write_bytes(cut)
    (album / "empty.wav").write_bytes(b"")
    (album / "text.mp3").write_text("This is not a song.\n" * 500)
    return folder


def synthetic_song(rng, pitch, beat, seconds, rate, channels):
    """Samples [shape=(n, channels)] of a chord near a pitch, with a beat and some noise."""
    t = np.arange(seconds * rate) / rate
    pitch = pitch * rng.uniform(0.9, 1.1)
    chord = sum(np.sin(2 * np.pi * pitch * ratio * t) for ratio in (1, 1.25, 1.5)) / 6
    beats = np.exp(-6 * ((t * beat * rng.uniform(0.9, 1.1)) % 1))
    y = chord * (0.3 + 0.7 * beats) + rng.uniform(-0.03, 0.03, t.size) * beats
    return np.stack([y, 0.8 * y], axis=1)[:, :channels].astype(np.float32)


def _write_messy(song, y, rate, cover):
    if song.suffix == ".m4a":
        write_by_pyav(song, y, rate, cover=cover)
        return
    soundfile.write(song, y, rate)
    if song.suffix == ".mp3" and cover:
        song.write_bytes(id3_cover() + song.read_bytes())


def cover_jpeg():
    """The bytes of a cover image."""
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(jpeg, format="JPEG")
    return jpeg.getvalue()


def id3_cover():
    """An ID3 tag with a cover image, which precedes the sound in an mp3."""
    content = b"\0image/jpeg\0\x03\0" + cover_jpeg()
    frame = b"APIC" + struct.pack(">I", len(content)) + b"\0\0" + content
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + frame


def write_by_pyav(song, y, rate, *, cover=False, codec="aac"):
    """Write samples [shape=(n, channels)] by PyAV, in the container of the suffix."""
    import av

    layout = {1: "mono", 2: "stereo", 16: "hexadecagonal"}[y.shape[1]]
    formats = {".m4a": "mp4", ".m4b": "mp4", ".m4v": "mp4", ".aac": "adts", ".mka": "matroska",
               ".mpg": "mpeg", ".wma": "asf", ".wmv": "asf"}  # fmt: skip
    format = formats.get(song.suffix.lower())
    with av.open(str(song), "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 128_000
        if cover:
            image = container.add_stream("mjpeg", width=64, height=64)
            image.pix_fmt = "yuvj420p"
            image.disposition = av.stream.Disposition.attached_pic
        samples = (y * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate = rate
        if cover:
            packet = av.Packet(cover_jpeg())
            packet.stream, packet.pts, packet.dts = image, 0, 0
            container.mux(packet)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
