"""Upload a model to a small Hugging Face hub on this machine, and download it again."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from huggingface_hub import ModelCard

from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.model_folder import write_config

COMMITS = ["0123456789abcdef0123456789abcdef01234567", "89abcdef0123456789abcdef0123456789abcdef"]
THERE_AND_BACK = """
import sys
from melgenre.inference.classifier import GenreClassifier
GenreClassifier.load(sys.argv[1]).push_to_hub("hf:somebody/genres", token="hf_no_secret")
print(GenreClassifier.load("hf:somebody/genres").predict(sys.argv[2]))
"""
TWO_VERSIONS = """
import sys
from melgenre.inference.classifier import GenreClassifier
for folder in sys.argv[1:3]:
    GenreClassifier.load(folder).push_to_hub("hf:somebody/genres", token="hf_no_secret")
for revision in ("", *("@" + name for name in sys.argv[3:])):
    print(GenreClassifier.load("hf:somebody/genres" + revision).fingerprint)
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as is needed to upload and download the versions of one model.

    The first version also has the tag v1; `main` is the last one.
    """

    @property
    def home(self):
        return f"http://{self.headers['Host']}/somebody/genres"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self.reply({"url": self.home, "id": "somebody/genres"})
        elif self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            self.reply({"files": [{"path": f["path"], "uploadMode": "regular",
                                   "shouldIgnore": False} for f in files]})  # fmt: skip
        elif self.path.endswith("/commit/main"):
            files = dict(self.server.files)
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    files[line["value"]["path"]] = content
            commit = COMMITS[len(self.server.versions)]
            self.server.versions[commit], self.server.files = files, files
            self.reply({"commitUrl": f"{self.home}/commit/{commit}", "commitOid": commit,
                        "success": True})  # fmt: skip
        else:
            self.reply({"valid": True, "warnings": [], "errors": []})

    def do_GET(self):
        self.server.fetched.append(self.path)
        parts = self.path.partition("?")[0].split("/")
        name = parts[-1]
        revision = next((parts[parts.index(one) + 1] for one in ("resolve", "revision", "tree")
                         if one in parts), "main")  # fmt: skip
        commits = list(self.server.versions)
        named = {"main": commits[-1], "v1": commits[0]} if commits else {}
        commit = named.get(revision, revision)
        files = self.server.versions.get(commit, {})
        if "resolve" in parts and name in files:
            self.reply(files[name], commit)
        elif "tree" in parts:
            self.reply([{"type": "file", "path": file, "size": len(content), "oid": file}
                        for file, content in files.items()], commit)  # fmt: skip
        elif commit in self.server.versions:
            siblings = [{"rfilename": file} for file in files]
            self.reply({"id": "somebody/genres", "sha": commit, "siblings": siblings}, commit)
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def reply(self, content, commit=COMMITS[0]):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.versions, server.fetched = {}, {}, []
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def environment(hub, tmp_path):
    """Environment variables that make the small hub the only one."""
    return {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}  # fmt: skip


@pytest.mark.parametrize("model", ["models/resnet34", "somebody/genres"])
def test_a_missing_folder_is_not_downloaded_from_the_hub(hub, environment, tmp_path, model):
    ran = subprocess.run(
        [sys.executable, "-m", "melgenre", "predict", "song.mp3", "--model", model],
        cwd=tmp_path, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert ran.returncode == 1
    assert f"No exported model in {model}: there is no such folder." in ran.stderr
    assert all(way in ran.stderr for way in ("make run", "melgenre train", "--model", "hf:owner"))
    assert hub.fetched == []


@pytest.mark.slow
def test_a_missing_repository_is_reported_in_a_sentence(hub, environment, tmp_path):
    hub.shutdown()
    ran = subprocess.run(
        [sys.executable, "-m", "melgenre", "predict", "song.mp3", "--model", "hf:somebody/none"],
        cwd=tmp_path, capture_output=True, text=True, env={**environment, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert ran.returncode == 1
    assert "hf:somebody/none cannot be fetched from the Hugging Face hub (" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
def test_a_model_is_uploaded_without_its_pickle_and_downloaded(
    hub, environment, exported, images, tmp_path
):
    song = os.path.abspath(images["path"].iloc[0])
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", THERE_AND_BACK, str(exported), song],
        cwd=tmp_path, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert sorted(hub.files) == ["README.md", "config.json", "model.onnx", "model.safetensors"]
    # Only the files that are needed are downloaded.
    fetched = {path.rpartition("/")[2] for path in hub.fetched if "/resolve/" in path}
    assert fetched == {"config.json", "model.onnx"}
    assert hub.created["name"] == "genres" and "private" in str(hub.created)
    assert ran.stdout.strip() == str(GenreClassifier.load(exported).predict(song))


@pytest.mark.slow
def test_a_pinned_revision_is_loaded_although_there_is_a_newer_one(
    hub, environment, exported, tmp_path
):
    newer = shutil.copytree(exported, tmp_path / "newer")
    config = json.loads((newer / "config.json").read_text())
    config["training"]["seed"] = 7
    write_config(newer, config)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TWO_VERSIONS, exported, newer, "v1", *COMMITS],
        cwd=tmp_path, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    first, second = (GenreClassifier.load(one).fingerprint for one in (exported, newer))
    assert first != second
    assert ran.stdout.split() == [second, first, first, second]


def test_the_models_page_shows_its_accuracy_with_its_split_and_interval(exported):
    """The hub reads `model-index` in the header of the card."""
    card = ModelCard.load(exported / "README.md")
    (shown,) = card.data.eval_results
    assert card.data.model_name == "resnet18"
    assert (shown.task_type, shown.metric_type) == ("audio-classification", "accuracy")
    assert shown.metric_value == 0.5
    assert shown.metric_name == "accuracy, 95 % interval 0.300 to 0.700"
    assert shown.metric_args == {"interval": [0.3, 0.7]}
    config = json.loads((exported / "config.json").read_text())
    assert shown.dataset_name == config["training"]["collection"]
    assert (shown.dataset_config, shown.dataset_split) == ("artist-split", "test")
    assert shown.dataset_args == {"tracks": 8}
