"""The fuzz targets: one for each kind of file that the package reads.

Each target is a function of a folder, the content of a file, and a number that chooses among the
ways to read it. Targets import the package when they run, so workers that need no torch start
without it.
"""

import io
import itertools
import shutil
import sys
import warnings
from contextlib import contextmanager

import mutators
import seeds

from melgenre.errors import MelgenreError


def recording(folder, content, choice):
    import numpy as np

    from melgenre.data.audio import audio_duration, iter_windows, load_audio
    from melgenre.data.mel_settings import MelSettings
    from melgenre.features.images import load_center

    song = folder / ("song.mp3", "song.wav", "s" * 251 + ".ogg")[choice % 3]
    song.write_bytes(content)
    source = (song, content, io.BytesIO(content))[choice // 3 % 3]
    with _without("av") if choice // 9 % 4 == 0 else _without():
        read = choice // 36 % 4
        if read == 0:
            y = load_audio(source, duration=31)
        elif read == 1:
            y = load_center(song, MelSettings(duration=2))
        elif read == 2:
            y = np.concatenate([y for _, _, y in itertools.islice(iter_windows(source, 3), 4)])
        else:
            assert 0 <= audio_duration(source) < float("inf")
            y = np.zeros(1)
    assert np.isfinite(y).all() and len(y) < 40 * 22050


@contextmanager
def _without(*modules):
    """Run the block as if some modules were not installed."""
    kept = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(dict.fromkeys(modules))
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(kept)


def archive(folder, content, choice):
    from melgenre.data.archives import is_archive, unpack

    file = folder / "archive"
    file.write_bytes(content)
    is_archive(file)
    unpack(file, folder / "data" / "music")


def collection(folder, content, choice):
    from melgenre.data.collection import load_collection

    (folder / "music.zip").write_bytes(content)
    load_collection(folder / "music.zip", data=folder / "data", progress=False)


def image(folder, content, choice):
    from melgenre.data.mel_settings import check_image

    (folder / "jazz").mkdir()
    (folder / "jazz" / "a.png").write_bytes(content)
    check_image(folder / "jazz" / "a.png")


def settings(folder, content, choice):
    import numpy as np

    from melgenre.data.mel_settings import load_settings
    from melgenre.features.melspectrogram import melspectrogram_image

    (folder / "mel_settings.json").write_bytes(content)
    found = load_settings(folder)
    image = melspectrogram_image(np.sin(np.arange(30_000, dtype=np.float32)), found)
    assert image.shape == (found.n_mels, found.columns)


def config(folder, content, choice):
    from melgenre.inference.classifier import _caveats
    from melgenre.inference.model_folder import read_config

    (folder / "config.json").write_bytes(content)
    found = read_config(folder)
    _caveats(found)
    training, result = found["training"], found["result"]
    f"{training['collection']} {training['weights']} {training['train_tracks']}"
    f"{result['tracks']} {result['protocol']} {result['accuracy']}"


def onnx(folder, content, choice):
    _model(folder, "model.onnx", content, "onnx")


def safetensors(folder, content, choice):
    import melgenre.networks

    # A real network has 45 MB, which would be too slow.
    melgenre.networks.build_network = lambda name, n_genres, body, **_: seeds.tiny_network(n_genres)
    _model(folder, "model.safetensors", content, "torch")


def _model(folder, name, content, backend):
    import numpy as np

    from melgenre.inference.classifier import GenreClassifier

    (folder / "config.json").write_bytes(seeds.tiny_config()[0])
    (folder / name).write_bytes(content)
    classifier = GenreClassifier.load(folder, backend=backend)
    shape = (1, classifier.settings.n_mels, classifier.settings.columns)
    classifier.predict_images(np.zeros(shape, np.uint8))


def results(folder, content, choice):
    from melgenre.evaluation.results import load_predictions, load_results

    lines, predictions = (tables[0] for tables in (seeds.result_lines(), seeds.predictions()))
    first = content.lstrip(b"\xef\xbb\xbf")[:1] == b"{"
    (folder / "runs.jsonl").write_bytes(content if first else lines)
    (folder / "predictions").mkdir()
    (folder / "predictions" / "a.csv").write_bytes(predictions if first else content)
    (folder / "predictions" / "b.csv").write_bytes(predictions)
    runs = load_results(folder)
    if len(runs):
        load_predictions(folder, runs)


def annotations(folder, content, choice):
    import pandas as pd

    from melgenre.data.annotations import apply_annotations, load_annotations, save_annotation

    (folder / "annotations.csv").write_bytes(content)
    found = load_annotations(folder / "annotations.csv")
    tracks = pd.DataFrame({"track_id": ["rock/a", "jazz/b"], "genre": ["rock", "jazz"]})
    apply_annotations(tracks, found)
    save_annotation(folder / "annotations.csv", "rock/a", "rock", "fine")
    assert len(load_annotations(folder / "annotations.csv"))


def songs(folder, content, choice):
    from melgenre.inference.batch import classify_folder

    class Classifier:
        genres, fingerprint = ["jazz", "rock"], "0123456789ab"

        def on_one_core(self):
            return self

        def predict(self, song):
            raise RuntimeError

    (folder / "music").mkdir()
    (folder / "music" / "a.wav").write_bytes(b"")
    (folder / "songs.csv").write_bytes(content)
    table = classify_folder(Classifier(), folder / "music", folder / "songs.csv", progress=False)
    assert table["song"].tolist() == ["a.wav"]


def tracks(folder, content, choice):
    from melgenre.data.collection import find_tracks

    for song in ("rock/a.wav", "jazz/b.wav"):
        (folder / song).parent.mkdir()
        (folder / song).write_bytes(b"")
    (folder / "tracks.csv").write_bytes(content)
    assert len(find_tracks(folder)) == 2


TARGETS = {
    "recording": (recording, seeds.recordings, mutators.mutate_recording),
    "archive": (archive, seeds.archives, mutators.mutate_archive),
    "collection": (collection, seeds.archives, mutators.mutate_archive),
    "image": (image, seeds.images, mutators.mutate_png),
    "settings": (settings, seeds.settings, mutators.mutate_json),
    "config": (config, seeds.configs, mutators.mutate_json),
    "onnx": (onnx, seeds.onnx, mutators.mutate_bytes),
    "safetensors": (safetensors, seeds.safetensors, mutators.mutate_bytes),
    "results": (results, seeds.result_lines, mutators.mutate_json),
    "predictions": (results, seeds.predictions, mutators.mutate_csv),
    "annotations": (annotations, seeds.annotations, mutators.mutate_csv),
    "songs": (songs, seeds.songs, mutators.mutate_csv),
    "tracks": (tracks, seeds.tracks, mutators.mutate_csv),
}
"""Name -> the function that reads a file, valid files, and the function that mutates them."""

WITH_TORCH = ("safetensors",)


def run_target(target, folder, content, choice):
    """Run a target on one input, in a new folder.

    Returns
    -------
    str
        "accepted", the name of one of the package's errors, or a text about too much memory.

    Raises
    ------
    Exception
        Any error that is not one of the package's.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with warnings.catch_warnings(action="ignore"):
            target(folder, content, choice)
    except Exception as error:
        cause = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                return f"over memory: {error!r}"
            cause = cause.__cause__ or cause.__context__
        if not isinstance(error, MelgenreError):
            raise
        str(error).encode()  # a message must be printable
        return type(error).__name__.lstrip("_")
    return "accepted"
