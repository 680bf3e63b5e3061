"""The folder that is pushed as a Space: it is complete, and starts in an environment of its own."""

import json
import os
import re
import runpy
import socket
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest
from conftest import ROOT
from test_page import Visitor, browser  # noqa: F401

NAME = "owner-melgenre.hf.space"


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """The folder, made where an earlier one and its git repository are."""
    folder = tmp_path_factory.mktemp("space") / "space"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "HEAD").touch()
    (folder / "melgenre" / "old").mkdir(parents=True)
    (folder / "old.py").touch()
    runpy.run_path(str(ROOT / "scripts" / "make_space.py"))["make_space"](folder)
    return folder


def header(space):
    """The fields of the README's header that are in one line."""
    text = (space / "README.md").read_text().split("---\n")[1]
    return dict(re.findall(r'(?m)^(\w+): "?(.+?)"?$', text))


def test_the_folder_has_all_files_and_no_others(space):
    names = {file.name for file in space.iterdir()}
    assert names == {".git", ".gitattributes", "LICENSE", "NOTICE", "README.md", "app.py",
                     "melgenre", "requirements.txt"}  # fmt: skip
    assert (space / ".git" / "HEAD").exists()
    tracked = subprocess.run(
        ["git", "ls-files", "src/melgenre"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    copied = {file.relative_to(space).as_posix() for file in space.glob("melgenre/**/*.*")}
    assert copied == {name.removeprefix("src/") for name in tracked}
    assert "*.onnx filter=lfs" in (space / ".gitattributes").read_text()


def test_the_requirements_are_the_tested_ones(space):
    tested = (ROOT / "constraints.txt").read_text().splitlines()
    required = (space / "requirements.txt").read_text().splitlines()
    assert set(required) <= set(tested)
    names = {re.match(r"[\w-]+", line)[0] for line in required}
    assert names == {"av", "filelock", "joblib", "lazy-loader", "matplotlib", "numpy",
                     "onnxruntime", "pandas", "soundfile", "soxr", "tqdm", "typer"}  # fmt: skip
    # Spaces install the SDK in the version of the header.
    assert f"gradio=={header(space)['sdk_version']}" in tested


def test_the_header_is_one_that_spaces_accept(space):
    fields = header(space)
    assert fields["sdk"] == "gradio" and (space / fields["app_file"]).exists()
    assert len(fields["short_description"]) <= 60
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {fields["colorFrom"], fields["colorTo"]} <= colours


@pytest.fixture(scope="module")
def python(space, tmp_path_factory):
    """The Python of a new environment with the packages of a Space."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    ran = subprocess.run(
        [folder / "bin" / "pip", "install", "--quiet", "-r", space / "requirements.txt",
         f"gradio=={header(space)['sdk_version']}"], capture_output=True, text=True,
    )  # fmt: skip
    if "Connection" in ran.stderr or "No matching distribution" in ran.stderr:
        pytest.skip("pip cannot download the packages of a Space")
    assert ran.returncode == 0, ran.stderr
    return folder / "bin" / "python"


@contextmanager
def running(space, python, folder):
    """A visitor of the Space's program, started as a Space starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    own = {"SYSTEM": "spaces", "SPACE_ID": "owner/melgenre", "SPACE_HOST": f"{NAME},music.example",
           "GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "0.0.0.0",
           "TMPDIR": str(folder)}  # fmt: skip
    with subprocess.Popen(
        [python, "app.py"], cwd=space, env={**kept, **own}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert "melgenre listens on" in process.stdout.readline()
            yield Visitor(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def visitor(space, python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    with running(space, python, folder) as visitor:
        visitor.folder = folder
        yield visitor
    assert not [file for file in folder.rglob("*") if file.is_file()]


@pytest.mark.slow
@pytest.mark.alone
def test_a_space_classifies_a_recording_and_deletes_it(visitor, write_song, tmp_path):
    # The headers that the proxy of a Space sends.
    proxy = {"Host": NAME, "X-Forwarded-Proto": "https", "Origin": f"https://{NAME}"}
    status, config = visitor.fetch("/config", **proxy)
    assert status == 200 and json.loads(config)["root"] == f"https://{NAME}"
    song = write_song(tmp_path / "a.wav", seconds=5).read_bytes()
    (path,) = json.loads(visitor.upload("a.wav", song, **proxy)[1])
    assert "<meter" in visitor.classify(path)
    assert not [file for file in visitor.folder.rglob("*") if file.is_file()]


@pytest.mark.slow
@pytest.mark.alone
def test_a_space_accepts_its_own_names_alone(visitor):
    for name in (NAME, "music.example", NAME.upper()):
        assert visitor.fetch("/", Host=name)[0] == 200, name
    for name in ("other-melgenre.hf.space", "hf.space", "huggingface.co"):
        assert visitor.fetch("/", Host=name)[0] == 421, name
    assert visitor.fetch("/config", Host=NAME, Origin="https://huggingface.co")[0] == 403


FRAME = '<iframe src="{}/?__theme=light" width="900" height="1400"></iframe>'


@pytest.fixture
def page(browser):  # noqa: F811
    """A page of Chromium that may show this machine's pages in those of the internet."""
    try:
        context = browser.new_context(permissions=["local-network-access"])
    except Exception as error:  # an older Chromium has no such permission, and needs none
        assert "permission" in str(error)
        context = browser.new_context()
    with closing(context):
        yield context.new_page()


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.browser
def test_hugging_face_alone_shows_a_space_in_a_frame(visitor, page, write_song, tmp_path):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    sites = ("https://huggingface.co/", "https://attacker.example/")
    body = FRAME.format(visitor.address)
    for site in sites:
        page.route(f"{site}**", lambda route: route.fulfill(body=body, content_type="text/html"))
    with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
        page.goto(sites[1])
    page.goto(sites[0])
    frame = page.frame_locator("iframe")
    frame.locator("input[type=file]").set_input_files(write_song(tmp_path / "a.wav", seconds=5))
    frame.get_by_role("button", name="Which genre is it?").click()
    words = frame.locator("#melgenre-prediction [role=status]").inner_text()
    assert re.match(r"a\.wav: (unsure|\w+, \d+%)", words)
    ours = (*sites, visitor.address, "blob:", "data:")
    assert [url for url in requests if not url.startswith(ours)] == []
