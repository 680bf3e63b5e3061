"""The operations that `kill.py` kills, each in a small folder of its own."""

import functools
import hashlib
import http.server
import itertools
import json
import os
import tarfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import soundfile

from melgenre.data.annotations import load_annotations, save_annotation
from melgenre.data.archives import unpack
from melgenre.data.collection import find_tracks
from melgenre.data.download import download
from melgenre.data.mel_settings import MelSettings, check_image
from melgenre.data.shards import find_shards, read_rows
from melgenre.evaluation.metrics import evaluate
from melgenre.evaluation.results import load_results, record_run
from melgenre.evaluation.run import Run
from melgenre.features.images import extract_melspectrograms
from melgenre.features.shards import extract_shards
from melgenre.inference.batch import classify_folder

# All imports come before the fork, so that a kill hits the operation itself.
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.model_folder import ModelError, write_config
from melgenre.training.cached_features import extract_features
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.export import export_learner
from melgenre.training.fit import fit
from melgenre.training.learner import genre_learner

GENRES = ["high", "low"]
BODY = "squeezenet1_1"  # small: its export takes a second


def nothing(*_):
    """For an operation without inputs or without a check."""


@dataclass(frozen=True)
class Operation:
    """An operation, its inputs, and the check of its files.

    Attributes
    ----------
    prepare : callable
        Called in the working directory of the operation; returns a function that runs it.
    make_inputs : callable
        Writes the inputs into a folder.
    check : callable
        Raises an exception if the files of a killed run are not correct.
    content : callable
        A file -> the content that must be the same after each run; None to ignore the file.
    serve : callable
        Starts a server that outlives the operation, in the process that kills.
    """

    prepare: callable
    make_inputs: callable = nothing
    check: callable = nothing
    content: callable = Path.read_bytes
    serve: callable = nothing


def make_songs(folder, seconds=2, count=24):
    """Write songs of two genres."""
    rng = np.random.default_rng(0)
    for number in range(count):
        song = folder / "music" / GENRES[number % 2] / f"song {number:02}.wav"
        song.parent.mkdir(parents=True, exist_ok=True)
        t = np.arange(seconds * 22050) / 22050
        tone = 0.3 * np.sin(2 * np.pi * (2000, 200)[number % 2] * rng.uniform(0.9, 1.1) * t)
        soundfile.write(song, tone + rng.normal(0, 0.01, t.size), 22050)


def make_images(folder):
    make_songs(folder, count=12)
    extract_melspectrograms(find_tracks(folder / "music"), folder / "images", progress=False)


def table():
    tracks = extract_melspectrograms(find_tracks("music"), "images", progress=False)
    return tracks.assign(split=["train", "train", "valid"] * (len(tracks) // 3))


def extract():
    return lambda: extract_melspectrograms(find_tracks("music"), "images", progress=False)


def check_images(folder):
    for image in (folder / "images").rglob("[!.]*.png"):
        check_image(image)


def extract_in_shards():
    from melgenre.features import shards

    shards.MOST_TRACKS = 2
    # The name of a collection has a hash of its path.
    tracks = find_tracks("music").assign(collection="songs")
    return lambda: extract_shards(tracks, "shards", progress=False)


def check_shards(folder):
    files = find_shards(folder / "shards").values()
    for file in itertools.chain.from_iterable(found.values() for found in files):
        for row, track in enumerate(read_rows(file)["track_id"].to_pylist()):
            check_image(f"{file}#{row}")
            assert (folder / "music" / f"{track}.wav").exists()


def make_model(folder):
    """Write songs, and a model of one layer."""
    make_songs(folder)
    settings = MelSettings()
    shape = ["batch", settings.n_mels, settings.columns]
    floats = onnx.TensorProto.FLOAT
    network = onnx.helper.make_graph(
        [
            onnx.helper.make_node("ReduceMean", ["images"], ["ood_score"], axes=[1, 2],
                                  keepdims=0),
            onnx.helper.make_node("ReduceMean", ["images"], ["energy"], axes=[2], keepdims=0),
            onnx.helper.make_node("MatMul", ["energy", "weights"], ["logits"]),
            onnx.helper.make_node("Softmax", ["logits"], ["probabilities"]),
        ],
        "small",
        [onnx.helper.make_tensor_value_info("images", floats, shape)],
        [
            onnx.helper.make_tensor_value_info("probabilities", floats, ["batch", 2]),
            onnx.helper.make_tensor_value_info("ood_score", floats, ["batch"]),
        ],
        [onnx.numpy_helper.from_array(np.eye(128, 2, dtype=np.float32), "weights")],
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", 13)]
    model = onnx.helper.make_model(network, opset_imports=opset, ir_version=8)
    (folder / "model").mkdir()
    onnx.save(model, str(folder / "model" / "model.onnx"))
    result = {"protocol": "random", "accuracy": 0.5, "interval": [0, 1], "tracks": 2}
    write_config(folder / "model", {
        "format_version": 6, "architecture": BODY, "body": "whole", "genres": GENRES,
        "mel_settings": settings.__dict__, "normalisation": {"mean": [0] * 3, "std": [1] * 3},
        "calibration": {"temperature": 1.0, "ood_threshold": None, "tracks": 2},
        "training": {"weights": "none", "collection": "songs"}, "result": result,
    })  # fmt: skip


def classify():
    classifier = GenreClassifier.load("model")
    return lambda: classify_folder(classifier, "music", "genres.csv", progress=False)


class SlowHandler(http.server.SimpleHTTPRequestHandler):
    """Serves 8 MB in one second, from any byte on, as servers of large files do."""

    content = np.random.default_rng(0).bytes(2**23)

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.send_header("ETag", '"one"')
        end = len(self.content)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        self.end_headers()
        for place in range(start, end, 2**17):
            self.wfile.write(self.content[place : place + 2**17])
            threading.Event().wait(0.01)

    def log_message(self, *_):
        """Keep quiet."""


@functools.cache
def server():
    """A server in the process that kills. It runs on when a download is killed."""
    one = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowHandler)
    one.handle_error = nothing  # clients are killed
    threading.Thread(target=one.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{one.server_port}/file"


def download_file():
    url = server()  # already runs in the process that kills
    return lambda: download(url, "file.bin", progress=False)


def check_download(folder):
    if (folder / "file.bin").exists():
        assert (folder / "file.bin").read_bytes() == SlowHandler.content


def make_archive(folder):
    source = folder.parent / "source"
    rng = np.random.default_rng(0)
    for number in range(300):
        file = source / "collection" / GENRES[number % 2] / f"{number}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(rng.bytes(20_000))
    with tarfile.open(folder / "music.tar.gz", "w:gz") as archive:
        archive.add(source, ".")


def unpack_archive():
    return lambda: unpack("music.tar.gz", "unpacked")


def check_unpacked(folder):
    if (folder / "unpacked").exists():
        assert len(list((folder / "unpacked").rglob("*.wav"))) == 300


def untrained_run(genres=("high", "low"), seed=0):
    """A `Run` of a small untrained network."""
    tracks = table().replace({"genre": dict(zip(GENRES, genres, strict=True))})
    learn = genre_learner(
        image_dataloaders(tracks), BODY, "smoke-test", pretrained=False, seed=seed
    )
    predictions = tracks.assign(predicted=genres[0], **{f"p_{genre}": 0.5 for genre in genres})
    result = evaluate(predictions, "random")
    # A collection is named by its folder, and each kill has a folder of its own.
    run = replace(learn.training_run, collection="c", learner=learn)
    return replace(run, result=result, predictions=predictions)


def make_older_model(folder):
    """Export a model of other genres, which the operation replaces."""
    make_images(folder)
    here = os.getcwd()
    os.chdir(folder)
    export_learner(untrained_run(genres=("alto", "bass"), seed=1), "exported")
    os.chdir(here)


def export():
    run = untrained_run()
    return lambda: export_learner(run, "exported")


def check_model(folder):
    """Check that the model is complete: the old one or the new one."""
    try:
        classifier = GenreClassifier.load(folder / "exported")
    except ModelError as error:
        raise AssertionError(f"no model: {error}") from error
    assert set(classifier.genres) in ({"alto", "bass"}, {"high", "low"})
    assert classifier.config["training"]["seed"] == (1 if "alto" in classifier.genres else 0)


def model_content(path):
    """The content of a file of the model, without the pickle, whose archive has random names."""
    if path.name == "learner.pkl":
        return "there"
    if path.name == "config.json":
        config = json.loads(path.read_text())
        del config["sha256"]
        return json.dumps(config)
    return path.read_bytes()


def record_results():
    predictions = pd.DataFrame({"track_id": [str(n) for n in range(300)]})
    predictions = predictions.assign(genre="a", predicted="a")

    def run():
        for seed in range(20):
            predictions.loc[: 10 * seed, "predicted"] = "b"
            result = {"protocol": "random", "accuracy": (predictions["predicted"] == "a").mean()}
            made = Run("m", "m", "r", "w", seed, "c", 300, result=result, predictions=predictions)
            record_run("results", made)

    return run


def check_results(folder):
    if (folder / "results" / "runs.jsonl").exists():
        runs = load_results(folder / "results")
        written = (folder / "results" / "runs.jsonl").read_text().splitlines()
        assert len(runs) == len(written), "a run is missing"


def results_content(path):
    if path.suffix == ".csv":
        return path.read_bytes()
    lines = map(json.loads, path.read_text().splitlines())
    return [{**line, "date": "", "commit": ""} for line in lines]


def annotate():
    def run():
        for number in range(60):
            save_annotation("annotations.csv", f"track {number}", "jazz", "corrupted")

    return run


def check_annotations(folder):
    found = load_annotations(folder / "annotations.csv")["track_id"].tolist()
    assert found == [f"track {number}" for number in range(len(found))]


def feature_cache():
    tracks = table()
    learn = genre_learner(image_dataloaders(tracks), BODY, "smoke-test", pretrained=False)
    from melgenre.training import cached_features

    cached_features.SAVED_TOGETHER = 2
    return lambda: extract_features(learn, tracks)


def train():
    tracks = table()
    learn = genre_learner(image_dataloaders(tracks), BODY, "smoke-test", pretrained=False)
    from melgenre.training import checkpoint

    checkpoint.SECONDS_BETWEEN = 0

    def run():
        with learn.no_bar(), learn.no_logging():
            fit(learn)
        weights = [tensor.numpy().tobytes() for tensor in learn.model.state_dict().values()]
        Path("weights.txt").write_text(hashlib.sha256(b"".join(weights)).hexdigest())

    return run


def training_content(path):
    return None if "checkpoints" in path.parts else path.read_bytes()


OPERATIONS = {
    "extraction": Operation(extract, make_songs, check_images),
    "shards": Operation(extract_in_shards, make_songs, check_shards),
    "folder CSV": Operation(classify, make_model),
    "download": Operation(download_file, check=check_download, serve=server),
    "unpack": Operation(unpack_archive, make_archive, check_unpacked),
    "export": Operation(export, make_older_model, check_model, model_content),
    "results": Operation(record_results, check=check_results, content=results_content),
    "annotations": Operation(annotate, check=check_annotations),
    "feature cache": Operation(feature_cache, make_images),
    "training": Operation(train, make_images, content=training_content),
}
