"""Downloads, from servers on loopback: one of any web address, one as the Hugging Face hub."""

import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from melgenre.data.download import DownloadError, download

HUB_ADDRESS = "https://huggingface.co/datasets/marsyas/gtzan/resolve/main/data/genres.tar.gz"
DOWNLOADER = """
import sys
from melgenre.data.download import download
download(*sys.argv[1:3], progress=len(sys.argv) > 3)
"""


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one file, with ranges and with the headers of the hub; it can close too early."""

    content, breaks_after, pause = bytes(range(256)) * 20_000, [], 0

    def do_GET(self):
        if self.command == "GET":
            self.server.ranges.append(self.headers.get("Range"))
        if not self.path.endswith("/genres.tar.gz"):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        size = len(self.content)
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        self.send_header("Content-Length", str(size - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        if self.command == "HEAD":
            return
        end = start + self.breaks_after.pop() if self.breaks_after else size
        for place in range(start, min(end, size), 2**18):
            time.sleep(self.pause)
            self.wfile.write(self.content[place : min(end, place + 2**18)])

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (Server,), {"breaks_after": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.ranges, running.handler = [], handler
        running.address = f"http://127.0.0.1:{running.server_port}"
        running.url = f"{running.address}/genres.tar.gz"
        running.handle_error = lambda *_: None  # of a client that was killed
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def environment(server, tmp_path_factory):
    """Environment variables that make the server the only hub."""
    return {**os.environ, "HF_ENDPOINT": server.address, "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path_factory.mktemp("hf")), "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1"}  # fmt: skip


def files(folder):
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(found)


class TestFromTheWeb:
    def test_a_file_is_downloaded_whole_and_only_once(self, server, tmp_path, capfd):
        target = download(server.url, tmp_path / "below" / "music.tar.gz", progress=False)
        assert target.read_bytes() == server.handler.content
        assert files(tmp_path) == ["below/music.tar.gz"]
        download(server.url, target, progress=False)
        assert len(server.ranges) == 1
        assert capfd.readouterr() == ("", "")
        download(server.url, tmp_path / "again.tar.gz")
        assert "100%" in capfd.readouterr().err

    def test_half_a_file_never_has_the_final_name(self, server, tmp_path):
        server.handler.breaks_after.append(3_000_000)
        with pytest.raises(DownloadError, match="the connection broke.*try again"):
            download(server.url, tmp_path / "music.tar.gz", progress=False)
        assert files(tmp_path) == []
        target = download(server.url, tmp_path / "music.tar.gz", progress=False)
        assert target.read_bytes() == server.handler.content

    @pytest.mark.slow
    def test_two_processes_download_one_file_once(self, server, tmp_path):
        target = tmp_path / "music.tar.gz"
        server.handler.pause = 0.01
        command = [sys.executable, "-c", DOWNLOADER, server.url, target]
        for process in [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]:
            assert process.wait() == 0
        assert target.read_bytes() == server.handler.content
        assert len(server.ranges) == 1
        assert files(tmp_path) == ["music.tar.gz"]

    def test_an_unreachable_server_gets_a_sentence_with_the_way_by_hand(self, tmp_path):
        with pytest.raises(DownloadError, match="cannot be reached.*browser.*music.zip"):
            download("http://127.0.0.1:9/music.zip", tmp_path / "music.zip", progress=False)
        assert files(tmp_path) == []

    def test_a_missing_file_gets_a_sentence(self, server, tmp_path):
        with pytest.raises(DownloadError, match="answers 404"):
            download(server.url + "x", tmp_path / "music.zip", progress=False)


class TestFromTheHub:
    @pytest.fixture
    def run(self, environment, tmp_path):
        def run(*options, url=HUB_ADDRESS):
            command = [sys.executable, "-c", DOWNLOADER, url, "gtzan/genres.tar.gz", *options]
            return subprocess.run(
                command, capture_output=True, text=True, cwd=tmp_path, env=environment
            )

        return run

    def test_a_file_of_a_dataset_lies_where_it_is_wanted_and_nowhere_else(
        self, run, server, tmp_path, environment
    ):
        ran = run()
        assert ran.returncode == 0, ran.stderr
        assert (ran.stdout, ran.stderr) == ("", "")
        assert (tmp_path / "gtzan" / "genres.tar.gz").read_bytes() == server.handler.content
        assert files(tmp_path) == ["gtzan/genres.tar.gz"]
        copies = files_of_size(environment["HF_HOME"], len(server.handler.content))
        assert copies == []
        assert run().returncode == 0
        assert len(server.ranges) == 1

    def test_the_bar_is_shown_if_wanted(self, run):
        assert "100%" in run("progress").stderr

    @pytest.mark.slow
    def test_an_interrupted_connection_is_continued(self, run, server, tmp_path):
        server.handler.content = os.urandom(25_000_000)  # the library writes 10 MB at a time
        server.handler.breaks_after.append(23_000_000)
        assert run().returncode == 0
        assert (tmp_path / "gtzan" / "genres.tar.gz").read_bytes() == server.handler.content
        assert server.ranges[0] is None
        assert int(server.ranges[1].removeprefix("bytes=").rstrip("-")) >= 10_000_000

    def test_a_missing_file_gets_a_sentence(self, run, tmp_path):
        ran = run(url=HUB_ADDRESS + "x")
        sentence = ran.stderr.splitlines()[-1]
        assert "DownloadError: Could not download https://huggingface.co/datasets/" in sentence
        assert "answers 404" in sentence
        assert sentence.endswith("with a browser and save it as gtzan/genres.tar.gz.")
        assert files(tmp_path) == []

    @pytest.mark.slow
    def test_an_unreachable_hub_gets_a_sentence(self, run, server):
        server.shutdown()
        server.server_close()
        assert "the server cannot be reached" in run().stderr.splitlines()[-1]

    @pytest.mark.slow
    def test_the_files_of_a_killed_download_are_deleted(self, run, server, tmp_path, environment):
        server.handler.content, server.handler.pause = os.urandom(20_000_000), 0.01
        command = [sys.executable, "-c", DOWNLOADER, HUB_ADDRESS, "gtzan/genres.tar.gz"]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment)
        while not any(path.stat().st_size > 2**20 for path in tmp_path.rglob("*.incomplete")):
            assert process.poll() is None, "downloaded before it could be killed"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert run().returncode == 0
        assert files(tmp_path) == ["gtzan/genres.tar.gz"]


def files_of_size(folder, size):
    return [
        os.path.join(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if os.path.getsize(os.path.join(root, name)) >= size
    ]
