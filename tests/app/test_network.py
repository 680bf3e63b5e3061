"""melgenre sends nothing into the network, and looks up no name: system calls are traced.

An audit hook of Python sees only Python's own calls, and ONNX Runtime makes its own.
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

pytestmark = pytest.mark.slow  # each test starts traced processes

CALLS = "connect,sendto,sendmsg,sendmmsg"
# Caches that libraries write into the home folder: fonts and compiled functions, but no device id.
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


class Tracer:
    """Runs commands in an empty home folder; checks what they send, and what they leave there."""

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
    """The calls of a trace that connect to another machine, or look up a name."""
    addresses = [line for line in log.splitlines() if "sa_family=" in line]
    return [
        line for line in addresses
        if not re.search(r"sa_family=AF_(UNIX|LOCAL|NETLINK|UNSPEC)", line)
        and (not re.search(r'"127\.|"::1"', line) or re.search(r"port=htons\(53\)", line))
    ]  # fmt: skip


@pytest.fixture
def tracer(strace, tmp_path):
    return Tracer(strace, tmp_path)


def test_a_connection_below_python_would_be_seen(tracer):
    program = """
import socket
socket.socket(type=socket.SOCK_DGRAM).connect(("192.0.2.1", 9))  # a datagram is not sent yet
socket.socket(type=socket.SOCK_DGRAM).sendto(b"name?", ("127.0.0.1", 53))
socket.socket(type=socket.SOCK_DGRAM).connect(("127.0.0.1", 9))
"""
    subprocess.run(tracer.command("-c", program), env=tracer.environment, check=True)
    assert len(sent_outside(tracer.log.read_text())) == 2


def test_prediction_sends_nothing(tracer, exported, write_song, tmp_path):
    song = write_song(tmp_path / "song.wav")
    assert (exported / "model.onnx").exists()
    printed = tracer.run("-m", "melgenre", "predict", "--json", "--model", exported, song)
    assert json.loads(printed)
    assert tracer.run("-c", TORCH, exported, song)


def test_extraction_sends_nothing(tracer, write_song, tmp_path):
    for number in range(10):  # enough for several processes
        write_song(tmp_path / "music" / "jazz" / f"{number}.wav")
    printed = tracer.run("-m", "melgenre", "extract", tmp_path / "music", tmp_path / "images")
    assert printed.startswith("10 of 10 songs")


def test_the_page_sends_nothing(tracer, exported, write_song, tmp_path):
    pytest.importorskip("gradio", reason='the page needs gradio: pip install "melgenre[app]"')
    from test_page import Visitor

    command = tracer.command("-m", "melgenre", "app", "--model", exported, "--port", 0)
    with subprocess.Popen(
        command, env=tracer.environment, stdout=subprocess.PIPE, text=True
    ) as traced:
        try:
            printed = traced.stdout.readline()
            visitor = Visitor(re.search(r"http://\S+(?=/ )", printed)[0])
            assert visitor.fetch("/")[0] == 200
            path = json.loads(
                visitor.upload("a.wav", write_song(tmp_path / "a.wav").read_bytes())[1]
            )
            assert "<meter" in visitor.classify(path[0])
            time.sleep(12)  # ONNX Runtime would report only after some seconds
        finally:
            for server in psutil.Process(traced.pid).children():
                server.terminate()
    tracer.check()


def test_the_libraries_send_nothing(tracer, tmp_path):
    tracer.run("-c", LIBRARIES, tmp_path)
