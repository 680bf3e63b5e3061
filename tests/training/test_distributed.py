"""Two processes that Accelerate launches on a CPU train one network; gloo connects them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

from melgenre.data.mel_settings import MelSettings, save_settings
from melgenre.inference.classifier import GenreClassifier
from melgenre.training.distributed import process_batch_size

SETTINGS = MelSettings(n_mels=64, duration=5)
GENRES = {"low": 0.7, "middle": 0.4, "high": 0.1}
"""The height of a bright band, as a share of the image's."""
PARTS = {"train": 15, "valid": 3, "test": 5}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The table of some small images with a bright band, and its file.

    The test set, 13 tracks, is no multiple of two, and neither is the validation set, 9.
    """
    folder, rng = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    save_settings(SETTINGS, folder)
    rows = []
    for genre, height in GENRES.items():
        (folder / genre).mkdir()
        for number in range(sum(PARTS.values())):
            image = rng.integers(0, 90, (SETTINGS.n_mels, SETTINGS.columns), dtype=np.uint8)
            top = int(height * SETTINGS.n_mels)
            image[top : top + 12] += 120
            file = folder / genre / f"{number}.png"
            Image.fromarray(image).save(file)
            part = "train" if number < 15 else "valid" if number < 18 else "test"
            rows.append((f"{genre}/{number}", genre, str(file), part, number))
    tracks = pd.DataFrame(rows, columns=["track_id", "genre", "image", "split", "artist_id"])
    tracks = tracks.drop(tracks.index[-2:])
    tracks.to_csv(folder / "tracks.csv", index=False)
    return tracks, folder / "tracks.csv"


def launch(home, *arguments):
    """Run the script as `accelerate launch` does on GPUs, but on a CPU."""
    script = [str(Path(__file__).with_name("distributed_script.py")), *map(str, arguments)]
    options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    changes = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "MELGENRE_BF16": "0"}
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **changes, "MELGENRE_HOME": str(home), "PYTHONPATH": path}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        # At a port that is taken, the launcher binds a free one itself; a port that is chosen for
        # it can be taken by another program before it is bound.
        options += ["--main_process_port", str(taken.getsockname()[1])]
        command = [sys.executable, "-m", "accelerate.commands.launch", *options, *script]
        launcher = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        try:
            _, errors = launcher.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            launcher.terminate()  # it ends its processes; killed, it would leave them behind
            pytest.fail(f"The launch took too long: {launcher.communicate()[1]}")
    return subprocess.CompletedProcess(command, launcher.returncode, stderr=errors)


@pytest.fixture(scope="module")
def trainings(tiny, tmp_path_factory):
    """What each process writes after a training, and after one that resumes from a killed one."""
    home = tmp_path_factory.mktemp("home")
    found, runs = [], []
    for name, killed in ("undisturbed", ["killed"]), ("resumed", []):
        (home / name).mkdir()
        runs.append(launch(home, tiny[1], home / name, *killed))
        assert (home / name / "1.json").exists(), runs[-1].stderr
        found.append([json.loads((home / name / f"{rank}.json").read_text()) for rank in (0, 1)])
    return home, runs, found


@pytest.mark.slow
def test_both_processes_end_with_the_same_network_and_the_same_metrics(trainings, tiny):
    _, _, ((first, second), _) = trainings
    assert first["process"] != second["process"]
    for same in ("weights", "values", "steps", "tracks", "probabilities"):
        assert first[same] == second[same], same
    # 45 images in batches of five: three of each process's 23, which are 7 steps per epoch.
    assert first["steps"] == 3 * (23 // 3)
    assert len(first["values"]) == 3


@pytest.mark.slow
def test_each_test_track_is_predicted_once_and_in_order(trainings, tiny):
    tracks, _ = tiny
    _, _, ((first, _), _) = trainings
    assert first["tracks"] == list(tracks.loc[tracks["split"] == "test", "track_id"])


@pytest.mark.slow
def test_one_model_is_exported_and_predicts_as_the_learner_did(trainings, tiny):
    tracks, _ = tiny
    home, _, ((first, _), _) = trainings
    assert first["checkpoints"] == 1
    assert {file.name for file in (home / "undisturbed").iterdir()} == {"0.json", "1.json", "model"}
    config = json.loads((home / "undisturbed" / "model" / "config.json").read_text())
    assert config["training"]["processes"] == 2
    classifier = GenreClassifier.load(home / "undisturbed" / "model")
    test = tracks[tracks["split"] == "test"]
    images = [np.asarray(Image.open(image)) for image in test["image"]]
    probabilities, _ = classifier.predict_images(images)
    # Calibration changes the confidence, but not the order.
    expected = np.argmax(first["probabilities"], axis=1)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), expected)


@pytest.mark.slow
def test_a_killed_process_ends_the_launch_and_the_training_resumes_with_the_same_weights(trainings):
    home, (killed, resumed), ((undisturbed, _), (first, second)) = trainings
    assert killed.returncode == 1
    assert "Signal 9" in killed.stderr
    assert resumed.returncode == 0, resumed.stderr
    assert "An interrupted training resumes after epoch 2" in resumed.stderr
    assert first["weights"] == second["weights"] == undisturbed["weights"]
    assert first["values"] == undisturbed["values"]


@pytest.mark.slow
def test_processes_that_differ_or_leave_end_the_training_with_a_sentence(trainings):
    home, _, _ = trainings
    differ, left = json.loads((home / "resumed" / "errors.json").read_text())
    assert differ.startswith("The processes of this training differ in their images, network or")
    assert left.startswith("Another process of this training has ended, so this one ends too.")


def test_the_shares_of_a_batch_are_the_batch_and_never_one_image(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert [process_batch_size(size) for size in (1, 5, 32)] == [1, 5, 32]
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert [process_batch_size(size) for size in (1, 5, 32)] == [1, 2, 8]


@pytest.mark.slow
def test_one_process_needs_no_accelerate_and_several_name_what_is_missing():
    program = (
        "import sys; sys.modules['accelerate'] = None\n"
        "from melgenre.training.distributed import join_processes\n"
        "import melgenre.training.fit, os\n"
        "join_processes()\n"
        "os.environ['WORLD_SIZE'] = '2'\n"
        "join_processes()\n"
    )
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    last = ran.stderr.splitlines()[-1]
    assert last.endswith('(accelerate is not installed): pip install "melgenre[accelerate]"'), last
