"""Upload a model to a small Hugging Face hub on this machine, and download it again."""

import base64
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from melgenre.inference.classifier import GenreClassifier

COMMIT = "0123456789abcdef0123456789abcdef01234567"
THERE_AND_BACK = """
import sys
from melgenre.inference.classifier import GenreClassifier
GenreClassifier.load(sys.argv[1]).push_to_hub("hf:somebody/genres", token="hf_no_secret")
print(GenreClassifier.load("hf:somebody/genres").predict(sys.argv[2]))
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as is needed to upload and download one model."""

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
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[line["value"]["path"]] = content
            self.reply({"commitUrl": f"{self.home}/commit/{COMMIT}", "commitOid": COMMIT,
                        "success": True})  # fmt: skip
        else:
            self.reply({"valid": True, "warnings": [], "errors": []})

    def do_GET(self):
        self.server.fetched.append(self.path)
        name = self.path.rpartition("/")[2]
        if "/resolve/" in self.path and name in self.server.files:
            self.reply(self.server.files[name])
        elif "/tree/" in self.path:
            self.reply([{"type": "file", "path": file, "size": len(content), "oid": file}
                        for file, content in self.server.files.items()])  # fmt: skip
        else:
            files = [{"rfilename": file} for file in self.server.files]
            self.reply({"id": "somebody/genres", "sha": COMMIT, "siblings": files})

    do_HEAD = do_GET

    def reply(self, content):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{len(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.fetched = {}, []
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
