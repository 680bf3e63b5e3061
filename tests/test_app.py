"""The page in Chromium, from a server of its own: what it answers, refuses and deletes."""

import http.client
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import ROOT

from melgenre.app_worker import judge_recording
from melgenre.audio import AudioError
from melgenre.classifier import GenreClassifier

pytest.importorskip("gradio", reason='the page needs gradio: pip install "melgenre[app]"')

# A server that ends at the first look at anything outside this machine.
SERVER = """
import os, sys
def at_home(event, args):
    host = {"socket.connect": 1, "socket.getaddrinfo": 0}.get(event)
    if host is not None:
        where = args[host][0] if event == "socket.connect" else args[host]
        if where not in ("127.0.0.1", "localhost", None) and "/" not in str(where):
            print("OUTSIDE", where, flush=True)
            os._exit(3)
sys.addaudithook(at_home)
from melgenre.app import serve
serve(sys.argv[1], port=int(sys.argv[2]), max_minutes=1, max_megabytes=6)
"""


class Server:
    """A server of the page, and what is on its disk."""

    def __init__(self, model, folder):
        self.folder, self.log = folder, folder / "log.txt"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        (folder / "tmp").mkdir()
        environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT / "src")}
        environment.pop("GRADIO_TEMP_DIR", None)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER, str(model), str(port)],
                cwd=folder, env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        for _ in range(240):
            if "listens on" in self.log.read_text():
                return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.5)
        raise TimeoutError(self.log.read_text())

    def uploads(self):
        return [file for file in (self.folder / "tmp").glob(".melgenre-*/**/*") if file.is_file()]

    def ask(self, path, data=None, **headers):
        """Status and text of a request."""
        request = urllib.request.Request(self.address + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, reply.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def status_before_body(self, path, size):
        """Status of a request that only says how much it is going to send."""
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=60)
        with closing(connection):
            connection.putrequest("POST", path)
            connection.putheader("Content-Length", str(size))
            connection.endheaders()
            return connection.getresponse().status

    def upload(self, name, content):
        """Status and text of an upload, as the page makes it."""
        boundary = "for-the-test-alone"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"'
        body = head.encode() + b"\r\n\r\n" + content + f"\r\n--{boundary}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self.ask("/gradio_api/upload", body, **kind)

    def join(self, path):
        """Ask for a file that is said to be uploaded, as the page does: session, status, text."""
        session, kind = os.urandom(5).hex(), {"Content-Type": "application/json"}
        song = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        asked = {"data": [song], "fn_index": 1, "session_hash": session}
        body = json.dumps(asked).encode()
        return session, *self.ask("/gradio_api/queue/join", body, **kind)

    def answer(self, session):
        """What the page would show of it."""
        return self.ask(f"/gradio_api/queue/data?session_hash={session}")[1]

    def judge(self, path):
        session, status, text = self.join(path)
        return self.answer(session) if status == 200 else text


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory):
    server = Server(exported, tmp_path_factory.mktemp("page"))
    yield server
    assert server.process.poll() is None, server.log.read_text()
    server.process.terminate()
    server.process.wait(20)
    # Ended by a signal, it leaves no upload behind.
    assert not list((server.folder / "tmp").glob(".melgenre-*"))


@pytest.fixture(scope="module")
def page(server):
    """The page in Chromium, which may ask nobody but the server."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        where = shutil.which("chromium") or shutil.which("google-chrome")
        microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        try:
            browser = playwright.chromium.launch(
                executable_path=where, args=["--no-sandbox", *microphone]
            )
        except Exception as error:
            pytest.skip(f"no Chromium here: {str(error).splitlines()[0]}")
        page = browser.new_page(viewport={"width": 1200, "height": 1400})
        page.set_default_timeout(60_000)
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.address)
        yield page
        browser.close()
    ours = (server.address, "blob:" + server.address, "data:")
    assert [url for url in asked if not url.startswith(ours)] == []
    assert errors == []


def press(page):
    """Ask as soon as the recording is there; what the page answers."""
    page.evaluate("document.querySelector('#melgenre-answer [role=status]')?.remove()")
    page.get_by_role("button", name="Which genre is it?").click()
    words = page.locator("#melgenre-answer [role=status]").inner_text()
    page.locator("button:disabled", has_text="Which genre is it?").wait_for()
    return words


def ask(page, file):
    """Drop a file, and ask."""
    page.set_input_files("input[type=file]", file)
    return press(page)


def header(seconds, rate=8000, channels=1):
    """A wav of a kilobyte that says it is longer."""
    n = seconds * rate * channels * 2
    riff = b"RIFF" + struct.pack("<I", n + 36) + b"WAVEfmt "
    shape = struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
    return riff + shape + b"data" + struct.pack("<I", n) + bytes(980)


def test_a_song_is_answered_seen_and_heard(page, server, exported, write_song, tmp_path):
    song = write_song(tmp_path / "Böse Песня 'x'.wav", seconds=50, rate=44100)
    words = ask(page, song)
    answer = GenreClassifier.load(exported).predict(song)
    said = (
        "unsure: unlike anything"
        if answer.unsure
        else f"{answer.genre}, {answer[answer.genre]:.0%}"
    )
    assert words.startswith(f"Böse Песня 'x'.wav: {said}")
    rows = page.locator("#melgenre-answer tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == list(answer)
    assert server.uploads() == []

    # The picture is as long as the song: a click into its middle plays from there.
    slider = page.get_by_label("Hear from second")
    assert float(slider.get_attribute("max")) == pytest.approx(50, abs=0.1)
    picture, audio = page.get_by_alt_text("The genres along the recording"), "#melgenre-song audio"
    box, track = picture.bounding_box(), slider.bounding_box()
    picture.click(position={"x": track["x"] + track["width"] / 2 - box["x"], "y": 40})
    page.wait_for_function(f"document.querySelector('{audio}').currentTime > 25.2")
    assert page.locator(audio).evaluate("audio => audio.currentTime") < 30
    assert page.locator(audio).evaluate("audio => !audio.paused")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_function(f"document.querySelector('{audio}').currentTime < 5")


@pytest.mark.parametrize("name", [
    "Beyoncé – “Déjà vu” & <b>ｊａｚｚ</b> 🎷.wav", "أغنية.wav", "a:b|c?d*e`f$g!{h}.wav",
    "100 %23 &lt;.wav", " spaces  and.dots ..wav",
])  # fmt: skip
def test_a_name_is_shown_as_it_is(page, server, write_song, tmp_path, name):
    song = write_song(tmp_path / "song.wav").read_bytes()
    page.set_input_files(
        "input[type=file]", {"name": name, "mimeType": "audio/wav", "buffer": song}
    )
    press(page)
    assert page.locator("#melgenre-answer bdi").evaluate("name => name.textContent") == name
    assert page.locator("#melgenre-answer b").count() == 0
    broken = {"name": name, "mimeType": "audio/wav", "buffer": b"no song" * 99}
    page.set_input_files("input[type=file]", broken)
    assert press(page).startswith(f"{' '.join(name.split())}: not readable as sound (it is text)")
    assert server.uploads() == []


def test_a_recording_of_the_microphone_is_answered(page, server):
    page.get_by_label("Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(2500)
    page.get_by_role("button", name="Stop", exact=True).click()
    assert re.match(r"audio\.wav: (unsure|\w+, \d+%)", press(page))
    caveat = "This model was trained on made-up music"
    assert caveat in page.locator("#melgenre-answer").inner_text()
    assert server.uploads() == []
    page.get_by_label("Upload file").click()


def test_what_cannot_be_judged_gets_a_sentence(page, server, write_song, tmp_path):
    quiet = np.zeros(22050 * 3)
    soundfile.write(tmp_path / "silence.wav", quiet, 22050)
    soundfile.write(tmp_path / "nan.wav", quiet * np.nan, 22050, subtype="FLOAT")
    write_song(tmp_path / "short.wav", seconds=0.1)
    write_song(tmp_path / "long.wav", seconds=70)
    write_song(tmp_path / '<img src=x> "quoted"\nБеда.wav')
    (tmp_path / "text.wav").write_text("no sound" * 100)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "hours.wav").write_bytes(header(100 * 3600, rate=4000))
    (tmp_path / "wide.wav").write_bytes(header(10, rate=192_000, channels=500))
    wanted = {"nan": "no numbers", "short": "0.10 s long", "long": "longer than 1 min",
              "text": "not readable", "empty": "empty file", "hours": "announces",
              "wide": "announces", "silence": r"unsure|\w+, \d+%"}  # fmt: skip
    for file in sorted(tmp_path.iterdir()):
        words = ask(page, file)
        assert re.search(wanted.get(file.stem, "Беда"), words), (file.name, words)
        assert "Traceback" not in words
        assert str(server.folder) not in words
        assert server.uploads() == [], file.name
        assert page.locator("#melgenre-answer img").count() == 0


def test_too_large_a_file_is_refused(page, server, write_song, tmp_path):
    big = {"name": "big.wav", "mimeType": "audio/wav", "buffer": bytes(7_000_000)}
    page.set_input_files("input[type=file]", big)
    page.get_by_text("exceed the maximum allowed size").wait_for()
    assert server.status_before_body("/gradio_api/upload", 7_000_000) == 413
    assert server.status_before_body("/gradio_api/queue/join", 200_000) == 413
    assert "short.wav" in ask(page, write_song(tmp_path / "short.wav"))
    assert server.uploads() == []


def test_nothing_else_of_the_disk_or_the_net_can_be_asked_for(server, exported):
    (server.folder / "secret.txt").write_text("a secret")
    status, text = server.upload("a.wav", b"sound")
    mine = json.loads(text)[0]
    asked = "/gradio_api/file="
    assert server.ask(asked + mine) == (200, "sound")
    folder = mine.rsplit("/", 2)[0]
    climbs = [f"{folder}/../../secret.txt", f"{folder}/%2e%2e/%2e%2e/secret.txt", "secret.txt",
              f"{folder}/..%2f..%2fsecret.txt", "..%2f..%2f..%2fetc/passwd"]  # fmt: skip
    for path in ["/etc/passwd", "//etc/passwd", str(exported / "config.json"), *climbs,
                 "http://127.0.0.1:1/x", "https://example.com/", "file:///etc/passwd"]:  # fmt: skip
        assert server.ask(asked + path)[0] in (403, 404), path
    for path in ["/static/../../../../etc/passwd", "/assets/..%2f..%2f..%2f..%2fetc/passwd",
                 "/gradio_api/proxy=https://example.com/", "/monitoring", "/docs",
                 "/gradio_api/openapi.json", "/gradio_api/stream/a/b/1/playlist.m3u8"]:  # fmt: skip
        assert server.ask(path)[0] in (403, 404), path
    for path in ["/gradio_api/run/answer", "/gradio_api/vibe-edit", "/gradio_api/component_server",
                 "/gradio_api/process_recording"]:  # fmt: skip
        assert server.ask(path, b"{}")[0] == 403, path
    # Nor can it be judged, and so deleted; nor is a web address fetched to be judged.
    for path in [
        exported / "config.json",
        server.folder / "secret.txt",
        "https://example.com/a.wav",
    ]:
        text = server.judge(path)
        assert "config.json:" not in text and "Traceback" not in text
        assert "There is no recording here" in text or '"success":false' in text, text
    assert (exported / "config.json").exists() and (server.folder / "secret.txt").exists()
    assert "not readable" in server.judge(mine)
    assert "There is no recording here" in server.judge(mine)
    assert server.uploads() == []


def test_more_requests_than_may_wait_are_turned_away(server, write_song, tmp_path):
    song = write_song(tmp_path / "song.ogg", seconds=58).read_bytes()
    files = [json.loads(server.upload(f"{i}.ogg", song + bytes(i))[1])[0] for i in range(14)]
    asked = [server.join(file) for file in files]
    assert {status for _, status, _ in asked} == {200, 503}
    accepted = [session for session, status, _ in asked if status == 200]
    assert 9 <= len(accepted) < 14  # one is answered and eight wait, and some are answered soon
    assert all("process_completed" in server.answer(session) for session in accepted)
    assert len(server.uploads()) == 14 - len(accepted)
    for file in server.uploads():  # the server itself forgets them later
        file.unlink()
    assert "process_completed" in server.judge(json.loads(server.upload("a.ogg", song)[1])[0])


def test_a_song_is_decoded_once_and_judged_as_by_the_classifier(exported, write_song, tmp_path):
    classifier = GenreClassifier.load(exported)
    song = write_song(tmp_path / "song.wav", seconds=75)
    answer, timeline, pictures = judge_recording(classifier, song)
    assert answer == classifier.predict(song)
    pd.testing.assert_frame_equal(timeline, classifier.timeline(song))
    assert len(pictures) == len(timeline) == 3
    with pytest.raises(AudioError, match="longer than 1 min"):
        judge_recording(classifier, song, max_minutes=1)
