"""What melgenre sends into the network, seen below Python: nothing, and no name is looked up.

An audit hook of Python sees no more than Python's own calls; ONNX Runtime connects by itself.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import psutil
import pytest
from conftest import ROOT

CALLS = "connect,sendto,sendmsg,sendmmsg"
# The caches that libraries write into a home: fonts and compiled functions, and no device id.
CACHES = (".cache/matplotlib", ".config/matplotlib", ".cache/fontconfig", ".cache/numba")

TORCH = """
import sys
from melgenre.inference.classifier import GenreClassifier
print(GenreClassifier.load(sys.argv[1], backend="torch").predict(sys.argv[2]))
"""
LIBRARIES = """
import sys
import matplotlib.pyplot as plt
plt.figure().savefig(sys.argv[1] + "/figure.png")
import huggingface_hub
import melgenre.training.learner
"""


@pytest.fixture(scope="module")
def strace(tmp_path_factory):
    """The command strace, where processes may be traced."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace, which sees what a process sends, is not installed")
    log = tmp_path_factory.mktemp("strace") / "log"
    tried = subprocess.run([strace, "-f", "-o", log, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"strace may not trace here: {tried.stderr.strip()}")
    return strace


class Watched:
    """Commands run in an empty home, and what they sent and left there."""

    def __init__(self, strace, folder):
        self.strace, self.home, self.log = strace, folder / "home", folder / "calls.txt"
        self.home.mkdir()
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith(("HF_", "GRADIO_", "ORT_", "XDG_", "MPL"))}  # fmt: skip
        self.environment = {**kept, "HOME": str(self.home), "PYTHONPATH": str(ROOT / "src"),
                            "TMPDIR": str(folder)}  # fmt: skip

    def command(self, *arguments):
        traced = [self.strace, "-f", "-qq", "-e", f"trace={CALLS}", "-o", self.log]
        return [str(part) for part in (*traced, sys.executable, *arguments)]

    def run(self, *arguments):
        done = subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        self.check()
        return done.stdout

    def check(self):
        assert sent_outside(self.log.read_text()) == []
        left = [file.relative_to(self.home) for file in self.home.rglob("*") if file.is_file()]
        assert [file for file in left if not str(file).startswith(CACHES)] == []


def sent_outside(log):
    """The calls of a trace that reach further than this machine, or ask for a name's address."""
    addresses = [line for line in log.splitlines() if "sa_family=" in line]
    return [
        line for line in addresses
        if not re.search(r"sa_family=AF_(UNIX|LOCAL|NETLINK|UNSPEC)", line)
        and (not re.search(r'"127\.|"::1"', line) or re.search(r"port=htons\(53\)", line))
    ]  # fmt: skip


@pytest.fixture
def watched(strace, tmp_path):
    return Watched(strace, tmp_path)


def test_a_connection_below_python_would_be_seen(watched):
    program = """
import socket
socket.socket(type=socket.SOCK_DGRAM).connect(("192.0.2.1", 9))  # a datagram is not sent yet
socket.socket(type=socket.SOCK_DGRAM).sendto(b"name?", ("127.0.0.1", 53))
socket.socket(type=socket.SOCK_DGRAM).connect(("127.0.0.1", 9))
"""
    subprocess.run(watched.command("-c", program), env=watched.environment, check=True)
    assert len(sent_outside(watched.log.read_text())) == 2


def test_prediction_sends_nothing(watched, exported, write_song, tmp_path):
    song = write_song(tmp_path / "song.wav")
    assert (exported / "model.onnx").exists()
    said = watched.run("-m", "melgenre", "predict", "--json", "--model", exported, song)
    assert json.loads(said)
    assert watched.run("-c", TORCH, exported, song)


def test_extraction_sends_nothing(watched, write_song, tmp_path):
    for number in range(10):  # so many that processes share them
        write_song(tmp_path / "music" / "jazz" / f"{number}.wav")
    said = watched.run("-m", "melgenre", "extract", tmp_path / "music", tmp_path / "images")
    assert said.startswith("10 of 10 songs")


def test_the_page_sends_nothing(watched, exported, write_song, tmp_path):
    pytest.importorskip("gradio", reason='the page needs gradio: pip install "melgenre[app]"')
    from test_page import Visitor

    command = watched.command("-m", "melgenre", "app", "--model", exported, "--port", 0)
    with subprocess.Popen(
        command, env=watched.environment, stdout=subprocess.PIPE, text=True
    ) as traced:
        try:
            said = traced.stdout.readline()
            visitor = Visitor(re.search(r"http://\S+(?=/ )", said)[0])
            assert visitor.ask("/")[0] == 200
            path = json.loads(
                visitor.upload("a.wav", write_song(tmp_path / "a.wav").read_bytes())[1]
            )
            assert "<meter" in visitor.predict_proba(path[0])
            time.sleep(12)  # ONNX Runtime would report only after some seconds
        finally:
            for server in psutil.Process(traced.pid).children():
                server.terminate()
    watched.check()


def test_the_libraries_send_nothing(watched, tmp_path):
    watched.run("-c", LIBRARIES, tmp_path)
