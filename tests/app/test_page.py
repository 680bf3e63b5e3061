"""The page in Chromium, from a server of its own: what it shows, refuses and deletes."""

import http.client
import http.server
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from conftest import ROOT

from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.model_folder import write_config

pytest.importorskip("gradio", reason='the page needs gradio: pip install "melgenre[app]"')
# Each test waits for a server, which has limits of time.
pytestmark = [pytest.mark.slow, pytest.mark.alone]

# A server that ends as soon as it connects to, or looks up, another machine.
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
import json
from melgenre.app import guard, page, uploads
for name, value in json.loads(sys.argv[4]).items():
    (module,) = [module for module in (guard, page, uploads) if hasattr(module, name)]
    setattr(module, name, value)
page.serve(sys.argv[1], port=int(sys.argv[2]), **json.loads(sys.argv[3]))
"""


JOIN, JSON = "/gradio_api/queue/join", {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=for-the-test-alone"}


def form(name, content):
    """The body of an upload."""
    head = f'Content-Disposition: form-data; name="files"; filename="{name}"'
    line = b"--for-the-test-alone"
    return b"\r\n".join([line, head.encode(), b"", content, line + b"--", b""])


class Visitor:
    """The requests of the page, and those of an attacker."""

    def __init__(self, address):
        self.address = address

    def connect(self):
        """A bare connection."""
        port = int(self.address.rsplit(":", 1)[1])
        return socket.create_connection(("127.0.0.1", port), timeout=60)

    def fetch(self, path, data=None, **headers):
        """Status and text of a request."""
        request = urllib.request.Request(self.address + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def status_before_body(self, path, size):
        """Status of a request whose headers alone are sent."""
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=60)
        with closing(connection):
            connection.putrequest("POST", path)
            connection.putheader("Content-Length", str(size))
            connection.endheaders()
            return connection.getresponse().status

    def upload(self, name, content, **headers):
        """Status and text of an upload, as the page makes it."""
        return self.fetch("/gradio_api/upload", form(name, content), **FORM, **headers)

    def join(self, path):
        """Request the genre of an uploaded file, as the page does: session, status, text."""
        session = os.urandom(5).hex()
        song = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        request = {"data": [song], "fn_index": 1, "session_hash": session}
        return session, *self.fetch(JOIN, json.dumps(request).encode(), **JSON)

    def result(self, session):
        """The events that the page shows as the result of a request."""
        return self.fetch(f"/gradio_api/queue/data?session_hash={session}")[1]

    def classify(self, path):
        """The result of a request, or the text that refuses it."""
        session, status, text = self.join(path)
        return self.result(session) if status == 200 else text


class Server(Visitor):
    """A server of the page, and the files on its disk."""

    def __init__(self, model, folder, *, constants=(), **limits):
        limits = {"max_minutes": 1, "max_megabytes": 6, **limits}
        self.folder, self.log = folder, folder / "log.txt"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        super().__init__(f"http://127.0.0.1:{port}")
        (folder / "tmp").mkdir(exist_ok=True)
        environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT / "src")}
        environment.pop("GRADIO_TEMP_DIR", None)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER, str(model), str(port), json.dumps(limits),
                 json.dumps(dict(constants))],
                cwd=folder, env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        for _ in range(240):
            if "listens on" in self.log.read_text():
                return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.5)
        raise TimeoutError(self.log.read_text())

    def processes(self):
        """The server's process and its children."""
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]

    def worker(self):
        """The process that classifies."""
        (worker,) = [p for p in self.processes() if "spawn_main" in " ".join(p.cmdline())]
        return worker

    def uploads(self):
        # `Path.rglob` raises an error if a folder is deleted meanwhile.
        found = os.walk(self.folder / "tmp")
        return [Path(folder, name) for folder, _, names in found for name in names]


@contextmanager
def served(model, folder, **settings):
    """A server for the block; ended by a signal, it leaves no upload and no process behind."""
    server = Server(model, folder, **settings)
    processes = server.processes()
    yield server
    assert server.process.poll() is None, server.log.read_text()
    server.process.terminate()
    server.process.wait(20)
    assert not list((server.folder / "tmp").glob(".melgenre-*"))
    assert not psutil.wait_procs(processes, timeout=20)[1]


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory):
    with served(exported, tmp_path_factory.mktemp("page")) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    """Chromium, in which the name rebound.example is the address of this machine."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        where = shutil.which("chromium") or shutil.which("google-chrome")
        microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        name = "--host-resolver-rules=MAP rebound.example 127.0.0.1"
        try:
            browser = playwright.chromium.launch(
                executable_path=where, args=["--no-sandbox", name, *microphone]
            )
        except sync_api.Error as error:
            pytest.skip(f"no Chromium here: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(server, browser):
    """The page in Chromium; it must send requests to its server alone."""
    page = browser.new_page(viewport={"width": 1200, "height": 1400})
    page.set_default_timeout(60_000)
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server.address)
    yield page
    page.close()
    ours = (server.address, "blob:" + server.address, "data:")
    assert [url for url in requests if not url.startswith(ours)] == []
    assert errors == []


def press(page):
    """Press the button when the upload is complete; the words of the result."""
    page.evaluate("document.querySelector('#melgenre-prediction [role=status]')?.remove()")
    page.get_by_role("button", name="Which genre is it?").click()
    words = page.locator("#melgenre-prediction [role=status]").inner_text()
    page.locator("button:disabled", has_text="Which genre is it?").wait_for()
    return words


def classify(page, file):
    """Upload a file, and press the button."""
    page.set_input_files("input[type=file]", file)
    return press(page)


def header(seconds, rate=8000, channels=1):
    """A wav of a kilobyte whose header declares a greater length."""
    n = seconds * rate * channels * 2
    riff = b"RIFF" + struct.pack("<I", n + 36) + b"WAVEfmt "
    shape = struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
    return riff + shape + b"data" + struct.pack("<I", n) + bytes(980)


@pytest.mark.browser
def test_the_page_shows_the_genre_and_plays_the_song(page, server, exported, write_song, tmp_path):
    song = write_song(tmp_path / "Böse Песня 'x'.wav", seconds=50, rate=44100)
    words = classify(page, song)
    prediction = GenreClassifier.load(exported).predict(song)
    expected = "unsure: unlike the music"
    if not prediction.is_ood:
        expected = f"{prediction.genre}, {prediction[prediction.genre]:.0%}"
    assert words.startswith(f"Böse Песня 'x'.wav: {expected}")
    rows = page.locator("#melgenre-prediction tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == list(prediction)
    assert server.uploads() == []

    # A click on the middle of the image plays the song from its middle.
    slider = page.get_by_label("Play from second")
    assert float(slider.get_attribute("max")) == pytest.approx(50, abs=0.1)
    image, audio = page.get_by_alt_text("The genres along the recording"), "#melgenre-song audio"
    box, track = image.bounding_box(), slider.bounding_box()
    image.click(position={"x": track["x"] + track["width"] / 2 - box["x"], "y": 40})
    page.wait_for_function(f"document.querySelector('{audio}').currentTime > 25.2")
    assert page.locator(audio).evaluate("audio => audio.currentTime") < 30
    assert page.locator(audio).evaluate("audio => !audio.paused")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_function(f"document.querySelector('{audio}').currentTime < 5")


@pytest.mark.browser
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
    assert page.locator("#melgenre-prediction bdi").evaluate("name => name.textContent") == name
    assert page.locator("#melgenre-prediction b").count() == 0
    broken = {"name": name, "mimeType": "audio/wav", "buffer": b"no song" * 99}
    page.set_input_files("input[type=file]", broken)
    assert press(page).startswith(f"{' '.join(name.split())}: not readable as sound (it is text)")
    assert server.uploads() == []


@pytest.mark.browser
def test_a_recording_of_the_microphone_is_classified(page, server):
    page.get_by_label("Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(2500)
    page.get_by_role("button", name="Stop", exact=True).click()
    assert re.match(r"audio\.wav: (unsure|\w+, \d+%)", press(page))
    caveat = "This model was trained on made-up music"
    assert caveat in page.locator("#melgenre-prediction").inner_text()
    assert server.uploads() == []
    page.get_by_label("Upload file").click()


@pytest.mark.browser
def test_a_recording_that_cannot_be_classified_gets_a_sentence(page, server, write_song, tmp_path):
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
    wanted = {"nan": "not numbers", "short": "0.10 s long", "long": "longer than 1 min",
              "text": "not readable", "empty": "empty file", "hours": "header states",
              "wide": "header states", "silence": r"unsure|\w+, \d+%"}  # fmt: skip
    for file in sorted(tmp_path.iterdir()):
        words = classify(page, file)
        assert re.search(wanted.get(file.stem, "Беда"), words), (file.name, words)
        assert "Traceback" not in words
        assert str(server.folder) not in words
        assert server.uploads() == [], file.name
        assert page.locator("#melgenre-prediction img").count() == 0


@pytest.mark.browser
def test_too_large_a_file_is_refused(page, server, write_song, tmp_path):
    big = {"name": "big.wav", "mimeType": "audio/wav", "buffer": bytes(7_000_000)}
    page.set_input_files("input[type=file]", big)
    page.get_by_text("exceed the maximum allowed size").wait_for()
    assert server.status_before_body("/gradio_api/upload", 7_000_000) == 413
    assert server.status_before_body("/gradio_api/queue/join", 200_000) == 413
    assert "short.wav" in classify(page, write_song(tmp_path / "short.wav"))
    assert server.uploads() == []


def test_no_other_file_and_no_web_address_can_be_read(server, exported):
    (server.folder / "secret.txt").write_text("a secret")
    status, text = server.upload("a.wav", b"sound")
    mine = json.loads(text)[0]
    file = "/gradio_api/file="
    assert server.fetch(file + mine) == (200, "sound")
    folder = mine.rsplit("/", 2)[0]
    climbs = [f"{folder}/../../secret.txt", f"{folder}/%2e%2e/%2e%2e/secret.txt", "secret.txt",
              f"{folder}/..%2f..%2fsecret.txt", "..%2f..%2f..%2fetc/passwd"]  # fmt: skip
    for path in ["/etc/passwd", "//etc/passwd", str(exported / "config.json"), *climbs,
                 "http://127.0.0.1:1/x", "https://example.com/", "file:///etc/passwd"]:  # fmt: skip
        assert server.fetch(file + path)[0] in (403, 404), path
    for path in ["/static/../../../../etc/passwd", "/assets/..%2f..%2f..%2f..%2fetc/passwd",
                 "/gradio_api/proxy=https://example.com/", "/monitoring", "/docs",
                 "/gradio_api/openapi.json", "/gradio_api/stream/a/b/1/playlist.m3u8"]:  # fmt: skip
        assert server.fetch(path)[0] in (403, 404), path
    for name in ("run/classify", "vibe-edit", "component_server", "process_recording"):
        assert server.fetch(f"/gradio_api/{name}", b"{}")[0] == 403, name
    # Nor are they classified, which would delete or download them.
    for path in [
        exported / "config.json",
        server.folder / "secret.txt",
        "https://example.com/a.wav",
    ]:
        text = server.classify(path)
        assert "config.json:" not in text and "Traceback" not in text
        assert "There is no recording here" in text, text
    assert (exported / "config.json").exists() and (server.folder / "secret.txt").exists()
    assert "not readable" in server.classify(mine)
    assert "There is no recording here" in server.classify(mine)
    assert server.uploads() == []


def test_more_requests_than_may_wait_are_refused(server, write_song, tmp_path):
    song = write_song(tmp_path / "song.ogg", seconds=58).read_bytes()
    files = [json.loads(server.upload(f"{i}.ogg", song + bytes(i))[1])[0] for i in range(14)]
    joined = [server.join(file) for file in files]
    assert {status for _, status, _ in joined} == {200, 503}
    accepted = [session for session, status, _ in joined if status == 200]
    assert 9 <= len(accepted) < 14  # one is processed and eight wait, and some are done soon
    assert all("process_completed" in server.result(session) for session in accepted)
    assert len(server.uploads()) == 14 - len(accepted)
    for file in server.uploads():  # the server would delete them later
        file.unlink()
    assert "process_completed" in server.classify(json.loads(server.upload("a.ogg", song)[1])[0])


def copied(exported, folder, **changes):
    """A copy of a model with changes to its config."""
    model = Path(shutil.copytree(exported, folder / "model"))
    config = json.loads((model / "config.json").read_text())
    for part, change in changes.items():
        config[part] = {**config[part], **change} if isinstance(change, dict) else change
    write_config(model, config)
    return model


@pytest.mark.browser
def test_a_config_brings_no_markup_into_the_page(exported, tmp_path, browser, write_song):
    script = "<img src=x onerror='window.attacked = 1'>"
    number = len(json.loads((exported / "config.json").read_text())["genres"])
    model = copied(
        exported, tmp_path, genres=[f"{i}{script}" for i in range(number)],
        training={"collection": script},
        result={"tracks": script, "accuracy": script, "protocol": script},
    )  # fmt: skip
    with served(model, tmp_path) as server, closing(browser.new_page()) as page:
        page.goto(server.address)
        page.get_by_text("its accuracy is not known").wait_for()
        assert script in page.locator("body").inner_text()
        classify(page, write_song(tmp_path / "song.wav"))
        assert script in page.locator("#melgenre-prediction").inner_text()
        page.wait_for_timeout(1000)
        assert page.evaluate("window.attacked") is None


def test_the_page_shows_a_config_that_has_text_in_place_of_numbers(exported, tmp_path):
    model = copied(exported, tmp_path, result={"tracks": "8", "accuracy": "0.5"})
    with served(model, tmp_path) as server:
        assert "on 8 test tracks (artist-split) its accuracy is 50%" in server.fetch("/config")[1]


def test_a_damaged_model_is_refused_at_the_start(exported, tmp_path):
    model = copied(exported, tmp_path, calibration={"ood_threshold": "much"})
    with pytest.raises(AssertionError, match="is damaged"):
        Server(model, tmp_path)
    assert not list((tmp_path / "tmp").iterdir())


SAME_SITE = {"Sec-Fetch-Site": "same-site"}
OPENED = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}


def test_a_server_accepts_only_requests_of_its_own_page(server):
    own = server.address.removeprefix("http://")
    port = own.split(":")[1]
    for name in [own, f"localhost:{port}", "localhost", f"LOCALHOST:{port}", "[::1]:7"]:
        assert server.fetch("/", Host=name)[0] == 200, name
    for name in ["rebound.example", f"rebound.example:{port}", f"127.0.0.1.example:{port}",
                 "", "::1", f"127.0.0.1:{port}@rebound.example", f"localhost:{port}:{port}",
                 "0.0.0.0", "127.0.0.2", "rebound.example:localhost"]:  # fmt: skip
        assert server.fetch("/", Host=name)[0] == 421, name
        assert server.upload("a.wav", b"sound", Host=name)[0] == 421, name
    for origin in ["http://rebound.example", "null", f"http://127.0.0.1:{int(port) + 1}", "",
                   f"http://localhost:{port}", "http://127.0.0.1", "file://",
                   f"http://{own}@rebound.example", f"ftp://{own}"]:  # fmt: skip
        assert server.upload("a.wav", b"sound", Origin=origin)[0] == 403, origin
        assert server.fetch("/config", Origin=origin)[0] == 403, origin
    for headers in [SAME_SITE, {**OPENED, "Sec-Fetch-Dest": "iframe"},
                    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}]:  # fmt: skip
        assert server.fetch("/", **headers)[0] == 403, headers
    assert server.fetch("/", **OPENED, **{"Sec-Fetch-Dest": "document"})[0] == 200
    assert server.fetch("/config", **OPENED, **{"Sec-Fetch-Dest": "document"})[0] == 403
    assert server.uploads() == []
    own_origin = {"Origin": server.address, "Sec-Fetch-Site": "same-origin"}
    status, text = server.upload("a.wav", b"sound", **own_origin)
    assert status == 200
    assert "not readable" in server.classify(json.loads(text)[0])
    # No header makes the page send its recordings elsewhere.
    elsewhere = {"X-Forwarded-Host": "rebound.example", "X-Gradio-Server": "http://rebound.example"}
    for path in ("/", "/config"):
        assert "rebound.example" not in server.fetch(path, **elsewhere)[1]


def test_named_sites_may_show_the_page_in_a_frame(exported, tmp_path):
    sites = ["https://huggingface.co", "https://example.org"]
    framed = {**OPENED, "Sec-Fetch-Dest": "iframe"}
    with served(exported, tmp_path, frame_ancestors=sites) as server:
        assert server.fetch("/", **framed)[0] == 200
        for other in ({"Sec-Fetch-Dest": "embed"}, {"Sec-Fetch-Mode": "no-cors"}, {"data": b"x"}):
            assert server.fetch("/", **{**framed, **other})[0] == 403, other
        assert server.fetch("/config", **framed)[0] == 403
        with urllib.request.urlopen(server.address) as response:
            policy = response.headers["Content-Security-Policy"]
            assert policy.endswith("frame-ancestors https://huggingface.co https://example.org")
            assert "X-Frame-Options" not in response.headers


def test_the_accepted_host_names_of_a_server():
    from melgenre.app.guard import server_names

    def names(*args):
        return server_names(*args) - {"localhost", "127.0.0.1", "[::1]"}

    own = socket.gethostname().lower()
    assert names("127.0.0.1") == set()
    assert names("192.0.2.7") == {"192.0.2.7"}
    assert names("2001:db8::7") == {"[2001:db8::7]"}
    assert names("0.0.0.0", ["Music.example"]) == {own, f"{own}.local", "music.example"}


def test_a_server_of_the_whole_network_accepts_its_own_names(quick):
    for name in ("music.example", "127.0.0.1", "localhost:1", socket.gethostname()):
        assert quick.fetch("/", Host=name)[0] == 200, name
    for name in ("0.0.0.0", "192.0.2.7", "example", "rebound.example"):
        assert quick.fetch("/", Host=name)[0] == 421, name


def test_a_port_in_use_is_reported_in_a_sentence(server, tmp_path):
    port = server.address.rsplit(":", 1)[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "melgenre", "app", "--port", port]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1
    assert f"The page cannot be shown on 127.0.0.1, port {port}" in ended.stderr
    assert "Traceback" not in ended.stderr


ATTACK = """async (address) => {
  const [form, found] = [new FormData(), {}];
  form.append("files", new Blob(["sound"]), "a.wav");
  const frame = document.createElement("iframe");
  const loaded = new Promise((done) => { frame.onload = done; });
  frame.src = address;
  document.body.append(frame);
  const tries = {
    read: () => fetch(address + "/config").then((response) => response.text()),
    blind: () => fetch(address + "/config", {mode: "no-cors"}).then((response) => response.type),
    upload: () => fetch(address + "/gradio_api/upload", {method: "POST", body: form}),
    blindUpload: () =>
      fetch(address + "/gradio_api/upload", {method: "POST", body: form, mode: "no-cors"}),
    image: () => new Promise((done, fail) => {
      const image = new Image();
      [image.onload, image.onerror] = [done, fail];
      image.src = address + "/static/img/logo_nosize.svg";
    }),
    events: () => new Promise((done, fail) => {
      const events = new EventSource(address + "/gradio_api/queue/data?session_hash=x");
      [events.onopen, events.onerror] = [done, () => { events.close(); fail(); }];
    }),
    socket: () => new Promise((done, fail) => {
      const socket = new WebSocket(address.replace("http", "ws") + "/gradio_api/queue/join");
      [socket.onopen, socket.onerror] = [done, fail];
    }),
  };
  for (const [name, attempt] of Object.entries(tries))
    found[name] = await attempt().then(() => "done", () => "refused");
  await loaded;
  return found;
}"""


@pytest.mark.browser
def test_a_page_of_another_site_reaches_nothing(server, browser, tmp_path):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    (tmp_path / "index.html").write_text("<p>Another site</p>")
    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    with closing(other.socket), closing(browser.new_page()) as page:
        statuses = {}
        page.on("response", lambda got: statuses.setdefault(got.url, got.status))
        # For the browser, these are other origins of the same site, and other sites.
        for host in ("127.0.0.1", "localhost", "rebound.example"):
            page.goto(f"http://{host}:{other.server_port}")
            found = page.evaluate(ATTACK, server.address)
            assert set(found.values()) == {"refused"}, (host, found)
            framed = [frame.url for frame in page.frames if frame != page.main_frame]
            assert server.address + "/" not in framed
        reached = {url: status for url, status in statuses.items() if server.address in url}
        assert set(reached.values()) <= {403}, reached
        # A name of another site whose address is this machine is refused.
        response = page.goto(server.address.replace("127.0.0.1", "rebound.example"))
        assert response.status == 421
        # A link to the page is allowed.
        page.goto(f"http://localhost:{other.server_port}")
        page.evaluate("address => { location = address; }", server.address)
        page.get_by_text("Which genre is it?").first.wait_for()
        other.shutdown()
    assert server.uploads() == []


def test_every_response_has_the_headers_that_protect_it(server):
    for path in ("/", "/config", "/nothing", "/gradio_api/upload"):
        connection = http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=60)
        with closing(connection):
            connection.request("GET", path)
            headers = connection.getresponse().headers
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Server" not in headers


def at_once(number, function):
    """What a function returns for each number, from as many threads."""
    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(function, range(number)))


def patient(request):
    """What a call returns, or the name of the error if the server has closed the connection."""
    try:
        return request()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, ""


def wait_until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError


def test_simultaneous_uploads_stay_within_the_limit_of_the_disk(exported, tmp_path):
    with served(exported, tmp_path, max_megabytes=1) as server:  # so that 20 MB fit
        most, done = [0], threading.Event()

        def watch():
            while not done.is_set():
                with suppress(FileNotFoundError):
                    most.append(sum(file.stat().st_size for file in server.uploads()))

        watching = threading.Thread(target=watch)
        watching.start()
        replies = at_once(100, lambda i: server.upload(f"{i}.wav", bytes([i]) * 900_000))
        done.set()
        watching.join()
        statuses = [status for status, _ in replies]
        assert set(statuses) == {200, 503}, statuses
        assert max(most) <= 20e6
        assert 15 <= statuses.count(200) == len(server.uploads()) <= 22
        for _, text in replies:
            if text.startswith("["):
                server.classify(json.loads(text)[0])
        assert server.uploads() == []
        # Too many small uploads are refused, too; those that are classified make room.
        replies = at_once(120, lambda i: server.upload("a.wav", b"sound"))
        assert [status for status, _ in replies].count(200) == 100
        assert len({text for _, text in replies if text.startswith("[")}) == 100
        server.classify(next(json.loads(text)[0] for _, text in replies if text.startswith("[")))
        assert server.upload("a.wav", b"sound")[0] == 200


def test_an_upload_that_breaks_off_leaves_nothing(server):
    body = form("a.wav", bytes(1_000_000))
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        f"{FORM['Content-Type']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    folders = set((server.folder / "tmp").glob(".melgenre-*/*"))
    for _ in range(30):  # more than fit if they were counted on
        with server.connect() as connection:
            connection.sendall(head.encode() + body[:500_000])
            wait_until(server.uploads)
    wait_until(lambda: not server.uploads())
    assert set((server.folder / "tmp").glob(".melgenre-*/*")) == folders
    for wrong in (body.replace(b"--for-the", b"--not-the"), body[:-9] + bytes(9), b"", body + body,
                  body.replace(b'; filename="a.wav"', b"").replace(b"form-data", b"")):  # fmt: skip
        status, text = server.fetch("/gradio_api/upload", wrong, **FORM)
        assert status in (200, 400) and "Traceback" not in text, (status, text)
        if status == 200:
            server.classify(json.loads(text)[0])
    assert server.fetch("/gradio_api/upload", body)[0] == 400
    assert server.uploads() == []
    assert "Traceback" not in server.log.read_text()


def test_an_unused_upload_is_deleted(exported, tmp_path):
    with served(exported, tmp_path, constants={"FORGOTTEN_SECONDS": 1}) as server:
        assert server.upload("a.wav", b"sound")[0] == 200
        wait_until(lambda: not server.uploads())


def test_a_recording_that_takes_too_long_does_not_block_the_page(exported, write_song, tmp_path):
    with soundfile.SoundFile(tmp_path / "zeros.flac", "w", 8000, 1) as file:
        for _ in range(180):  # minutes
            file.write(np.zeros(8000 * 60, np.int16))
    zeros = (tmp_path / "zeros.flac").read_bytes()
    with served(exported, tmp_path, max_minutes=1e6, max_seconds=3) as server:
        worker = server.worker()
        text = server.classify(json.loads(server.upload("zeros.flac", zeros)[1])[0])
        assert "takes too long to classify" in text
        assert not worker.is_running()
        song = write_song(tmp_path / "song.wav").read_bytes()
        text = server.classify(json.loads(server.upload("song.wav", song)[1])[0])
        assert "<meter" in text
        assert server.uploads() == []


def test_a_worker_that_crashes_is_replaced(server, write_song, tmp_path):
    song = write_song(tmp_path / "song.ogg", seconds=58).read_bytes()
    path = json.loads(server.upload("song.ogg", song)[1])[0]
    server.worker().suspend()  # so that it is killed in the middle of it
    session, _, _ = server.join(path)
    server.worker().kill()
    assert "cannot be classified: it takes too much memory" in server.result(session)
    path = json.loads(server.upload("song.ogg", song)[1])[0]
    assert "<meter" in server.classify(path)
    assert server.uploads() == []


def test_a_recording_of_hundreds_of_channels_takes_little_memory(server, write_song, tmp_path):
    wide = write_song(tmp_path / "wide.ogg", seconds=5, channels=255).read_bytes()
    before = server.worker().memory_info().rss
    text = server.classify(json.loads(server.upload("wide.ogg", wide)[1])[0])
    assert "process_completed" in text
    assert server.worker().memory_info().rss < before + 2e8


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is not enforced elsewhere")
def test_the_memory_of_the_worker_is_limited(tmp_path):
    program = """
import numpy as np
from melgenre.app import worker as app_worker
app_worker._limit_memory()
class Classifier:
    def analyze(self, recording, max_minutes):
        return np.ones(2**28)
print(app_worker._classify(Classifier(), "a.wav", "a.wav", 1))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    printed = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert "takes too much memory" in printed


QUICK = {"HEAD_SECONDS": 1, "IDLE_SECONDS": 1, "READING_SECONDS": 1, "REPLY_SECONDS": 2,
         "SLOWEST": 6_000_000, "MOST_CONNECTIONS": 50}  # fmt: skip


@pytest.fixture(scope="module")
def quick(exported, tmp_path_factory):
    """A server with short time limits."""
    folder = tmp_path_factory.mktemp("smoke-test")
    network = {"host": "0.0.0.0", "allow_hosts": ["Music.example"]}
    with served(exported, folder, constants=QUICK, **network) as server:
        yield server


def until_closed(connection, drip=b""):
    """What a server sends until it closes the connection, while it receives a few bytes."""
    received, end = b"", time.monotonic() + 60
    connection.settimeout(0.2)
    while time.monotonic() < end:
        try:
            some = connection.recv(65536)
            received += some
            if not some:
                return received
        except TimeoutError:
            pass
        except OSError:
            return received
        if drip:
            with suppress(OSError):
                connection.sendall(drip)
    raise TimeoutError(f"{len(received)} bytes came, and the connection is open")


POST = b"POST /gradio_api/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n"


def test_an_idle_or_slow_connection_is_closed(quick):
    get = b"GET /config HTTP/1.1\r\nHost: localhost\r\n"
    for start, drip in [
        (b"", b""), (b"G", b""), (get, b"x"), (get, b"X-Header: a\r\n"), (get + b"\r\n", b""),
        (get + b"\r\n", b"G"), (get + b"\r\n" + get, b"X: a\r\n"),
        (get + b"Content-Length: 90000\r\n\r\n", b"x"), (b"\x16\x03\x01\x02", b"\0"),
        (POST % b"queue/join" + b"\r\n", b"x"), (POST % b"queue/join" + b"\r\n", b""),
        (POST % b"other" + b"\r\n", b"x"),
        (POST % b"upload" + b"Content-Type: multipart/form-data; boundary=a\r\n\r\n--a", b"x"),
    ]:  # fmt: skip
        with quick.connect() as connection:
            connection.sendall(start)
            until_closed(connection, drip)
    assert quick.uploads() == []
    assert quick.fetch("/")[0] == 200


def test_the_connection_of_a_client_that_does_not_read_is_closed(quick):
    path = json.loads(quick.upload("a.wav", bytes(5_900_000))[1])[0]
    request = f"GET /gradio_api/file={path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with quick.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request * 20)
        ours = connection.getsockname()

        def open_there():
            # The kernel may keep the connection for longer than the server.
            return ours in [held.raddr for held in quick.processes()[0].net_connections()]

        wait_until(open_there)
        wait_until(lambda: not open_there())
    quick.classify(path)
    assert quick.uploads() == []


def test_a_request_that_the_page_does_not_make_is_refused(server):
    (server.folder / "secret.wav").write_text("a secret")
    path = json.loads(server.upload("a.wav", b"sound")[1])[0]
    folder = path.rsplit("/", 2)[0]
    session = {"session_hash": "x", "fn_index": 1}
    for song in [{"path": f"{folder}/../../secret.wav"}, {"path": f"{folder}/\x1b[31m"},
                 {"path": 1}, {"path": f"{path}/../recording.wav"}, {"path": f"{path}\0"}, {}, 1,
                 "a", [], {"path": folder}, {"url": "http://127.0.0.1:1/a.wav"}]:  # fmt: skip
        body = json.dumps({"data": [song], **session}).encode()
        assert server.fetch(JOIN, body, **JSON)[0] == 403, song
    for body in [b"", b"[]", b"{}", b"[" * 90_000, b'{"data": []}', b"\xff"]:
        assert server.fetch(JOIN, body, **JSON)[0] == 403, body[:10]
    # Fields for which gradio would print a traceback are removed or replaced.
    song = {"path": path, "orig_name": "\ud83d", "size": "much", "url": {}, "meta": 1}
    request = {"data": [song], "session_hash": "\ud83d" * 1000, "fn_index": "x", "event_data": 1}
    assert server.fetch(JOIN, json.dumps(request).encode(), **JSON)[0] == 200
    wait_until(lambda: not Path(path).exists())
    assert "Traceback" not in server.log.read_text()


def test_a_stream_without_events_ends(quick):
    for path in ("queue/data?session_hash=nobody", "upload_progress?upload_id=nothing"):
        status = patient(lambda path=path: quick.fetch("/gradio_api/" + path))[0]
        assert status in (200, 404, "IncompleteRead")
    assert "Traceback" not in quick.log.read_text()


def test_too_many_connections_are_refused(quick):
    connections = [quick.connect() for _ in range(60)]
    assert patient(lambda: quick.fetch("/"))[0] in (503, "ConnectionResetError")
    for connection in connections:
        connection.close()
    wait_until(lambda: patient(lambda: quick.fetch("/"))[0] == 200)


def test_two_hundred_requests_at_once_are_processed_or_refused(exported, write_song, tmp_path):
    song = write_song(tmp_path / "song.wav", seconds=20).read_bytes()
    with served(exported, tmp_path) as server:

        def memory():
            return sum(process.memory_info().rss for process in server.processes())

        def visit(i):
            if i % 4 == 0:
                return patient(lambda: server.fetch("/"))
            if i % 4 == 1:
                return patient(lambda: server.fetch("/config"))
            status, text = patient(lambda: server.upload(f"{i}.wav", song))
            if status != 200:
                return status, text
            session, status, text = server.join(json.loads(text)[0])
            if status != 200:
                kept.append(text)
                return status, text
            return 200, server.result(session)

        visit(2)
        before, most, kept, done = memory(), [], [], threading.Event()

        def watch():
            while not done.wait(0.05):
                most.append(memory())

        watching = threading.Thread(target=watch)
        watching.start()
        replies = at_once(200, visit)
        done.set()
        watching.join()
        statuses = [status for status, _ in replies]
        assert set(statuses) <= {200, 503, 429}, statuses
        assert statuses.count(200) > 100
        assert sum("<meter" in text for _, text in replies) >= 9
        assert max(most) < before + 200e6
        assert server.fetch("/")[0] == 200
        assert "Traceback" not in server.log.read_text()
        # The uploads of refused requests are kept, because the page can repeat the request.
        assert len(server.uploads()) <= len(kept)


def test_earlier_visitors_take_no_memory(server):
    def visits(number):
        for _ in range(number):
            request = {"data": [None], "session_hash": os.urandom(5).hex(), "fn_index": 1}
            status, _ = server.fetch(JOIN, json.dumps(request).encode(), **JSON)
            assert status == 200
            assert "There is no recording here" in server.result(request["session_hash"])
        return server.processes()[0].memory_info().rss

    before = visits(150)
    assert visits(300) < before + 25e6


def test_a_killed_server_leaves_nothing_for_long(exported, tmp_path):
    server = Server(exported, tmp_path)
    assert server.upload("a.wav", b"sound")[0] == 200
    processes = server.processes()
    server.process.kill()
    server.process.wait(20)
    assert not psutil.wait_procs(processes, timeout=20)[1]
    (left,) = (tmp_path / "tmp").glob(".melgenre-*")
    assert left.stat().st_mode & 0o777 == 0o700
    with served(exported, tmp_path) as server:
        assert not left.exists()
        # Another server beside it keeps its own.
        path = json.loads(server.upload("a.wav", b"sound")[1])[0]
        beside = Server(exported, tmp_path)
        assert Path(path).exists()
        beside.process.terminate()
        beside.process.wait(20)
        assert Path(path).exists()
