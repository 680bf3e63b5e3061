"""The web page: upload a recording, see its genre and its timeline, and play it.

Uploads are untrusted: they are limited in size, length and time, visible to nobody else, and
deleted after they are classified. The server makes no request to the internet.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterable
from contextlib import asynccontextmanager, suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import extra_packages
from ..files import temporary_folder
from .worker import NO_RECORDING, Worker, sentence

if TYPE_CHECKING:
    import gradio

    from .uploads import Uploads

MOST_CONNECTIONS = 250  # at once; further ones get status 503
SESSIONS_KEPT = 100  # the latest ones of visitors
IDLE_SECONDS = 5  # until a connection without a request is closed
ENDING_SECONDS = 2  # to finish responses when the server ends

# The browser keeps its own copy of the song, because the server deletes its copy.
KEEP_SONG = """async (song) => {
  URL.revokeObjectURL(window.melgenreSong);
  window.melgenreSong = song && URL.createObjectURL(await (await fetch(song.url)).blob());
  return [song];
}"""
ENABLE_BUTTON = "(song) => ({__type__: 'update', interactive: !!song})"
PLAY_SONG = """(timeline) => {
  const audio = document.querySelector("#melgenre-song audio");
  if (timeline) audio.src = window.melgenreSong; else audio.removeAttribute("src");
  audio.hidden = !timeline;
  audio.nextElementSibling.hidden = true;
  audio.onerror = () => { audio.nextElementSibling.hidden = !audio.src; };
}"""
PLAYER = """<audio controls hidden></audio>
<p hidden>This browser cannot play this format; the prediction is valid nevertheless.</p>"""
SEEK = """const seek = (seconds) => {
  const audio = document.querySelector("#melgenre-song audio");
  audio.currentTime = seconds;
  audio.play();
};
element.addEventListener("click", (event) => {
  if (event.target.tagName !== "IMG") return;
  const box = event.target.getBoundingClientRect();
  const slider = element.querySelector("input");
  const [left, right] = [slider.dataset.left, slider.dataset.right].map(Number);
  const share = ((event.clientX - box.left) / box.width - left) / (right - left);
  slider.value = Math.min(Math.max(share, 0), 1) * slider.max;
  seek(slider.value);
});
element.addEventListener("change", (event) => seek(event.target.value));"""


def build_app(
    worker: Worker, uploads: Uploads, *, max_minutes: float, max_megabytes: float, max_waiting: int
) -> gradio.Blocks:
    """Build the page, without the limits that `serve` sets on requests.

    Parameters
    ----------
    max_minutes, max_megabytes
        Longest and largest recording, for the text of the page.
    max_waiting
        Requests that may wait while one is processed; further ones are refused.

    Raises
    ------
    MissingPackageError
        If gradio is not installed.
    """
    gradio = _import_gradio()

    def classify(song):
        file = Path(song.path if song else uploads.folder).resolve()
        # gradio removes characters from a name; the browser also sends the original.
        name = (song and song.orig_name) or file.name
        # gradio has checked that the file exists, but another request may have deleted it since.
        if file.parent.parent != uploads.folder or not file.is_file():
            return sentence(NO_RECORDING), "", None
        try:
            return *worker.classify(file, name), None
        finally:
            uploads.delete(file)

    with gradio.Blocks(title="melgenre", analytics_enabled=False) as app:
        gradio.HTML(_heading_html(worker.config, max_minutes, max_megabytes))
        # No buttons: one of gradio's uploads the recording to Hugging Face.
        song = gradio.Audio(type="filepath", label="A recording", editable=False, buttons=[])
        song.async_move_resource_to_block_cache = _keep_path
        song.preprocess = _keep_all_fields
        button = gradio.Button("Which genre is it?", variant="primary", interactive=False)
        # The button is enabled when the upload is complete.
        song.change(None, song, button, js=ENABLE_BUTTON)
        prediction = gradio.HTML(elem_id="melgenre-prediction")
        timeline = gradio.HTML(js_on_load=SEEK)
        gradio.HTML(PLAYER, elem_id="melgenre-song")
        clicked = button.click(classify, song, [prediction, timeline, song], js=KEEP_SONG)
        clicked.then(None, timeline, None, js=PLAY_SONG)
    return app.queue(default_concurrency_limit=1, max_size=max_waiting, api_open=False)


def serve(
    model_folder: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    allow_hosts: Iterable[str] = (),
    frame_ancestors: Iterable[str] = (),
    max_minutes: float = 15,
    max_megabytes: float = 50,
    max_seconds: float = 60,
    max_waiting: int = 8,
):
    """Show the page until Ctrl-C; by default to this machine alone.

    Parameters
    ----------
    model_folder
        As for `GenreClassifier.load`.
    host
        "0.0.0.0" shows the page to the whole network.
    allow_hosts
        Names of this machine in the network, beside its own name and addresses.
    frame_ancestors
        Sites that may show the page in a frame, such as "https://huggingface.co".
    max_minutes, max_megabytes
        Longest and largest recording.
    max_seconds
        Longest time that a recording may take.
    max_waiting
        As for `build_app`.
    """
    _import_gradio()
    import uvicorn

    from .guard import HEAD_BYTES, Protocol, guard, server_names
    from .uploads import Uploads

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that uploads are deleted then
    max_bytes = int(max_megabytes * 1e6)
    with _listen(host, port) as listening, temporary_folder(tempfile.gettempdir()) as folder:
        folder = folder.resolve()
        os.environ["GRADIO_TEMP_DIR"] = os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        uploads = Uploads(folder, max_bytes)
        worker = Worker(model_folder, max_minutes=max_minutes, max_seconds=max_seconds)
        page = build_app(
            worker,
            uploads,
            max_minutes=max_minutes,
            max_megabytes=max_megabytes,
            max_waiting=max_waiting,
        )
        (function,) = [number for number, one in page.fns.items() if one.fn]
        app = guard(
            _mount(page, uploads, worker, host=host, port=port),
            folder,
            function=function,
            hosts=server_names(host, allow_hosts),
            frame_ancestors=frame_ancestors,
            max_bytes=max_bytes,
            result_seconds=max_seconds * (max_waiting + 1),
        )
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            log_level="critical",
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=ENDING_SECONDS,
            h11_max_incomplete_event_size=HEAD_BYTES,
        )
        where = "127.0.0.1" if host == "0.0.0.0" else host
        address = f"http://{where}:{listening.getsockname()[1]}/"
        print(f"melgenre listens on {address} (Ctrl-C ends it)", flush=True)
        try:
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[listening])
        finally:
            worker.stop()


def _mount(page, uploads, worker, *, host, port):
    """The page and the routes of its uploads as one ASGI application."""
    import gradio
    from starlette.applications import Starlette

    @asynccontextmanager
    async def lifespan(_):
        yield
        worker.stop()  # so that no request waits for its result

    # gradio keeps each visitor's page in memory, and results that are not fetched.
    page.state_session_capacity = SESSIONS_KEPT
    page._queue.pending_messages_per_session.max_size = SESSIONS_KEPT
    return gradio.mount_gradio_app(
        Starlette(routes=uploads.routes, lifespan=lifespan),
        page,
        "/",
        server_name=host,
        server_port=port,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=uploads.max_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    )


def _listen(host, port):
    """A socket that listens on a host and port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(
            f"The page cannot be shown on {host}, port {port} ({error.strerror}). Name another "
            "host or port: --host, --port"
        ) from error


def _import_gradio():
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported
    with extra_packages("app", "The page"):
        import gradio
    return gradio


async def _keep_path(path):
    """Leave an upload where it is; gradio would copy it, and download a web address."""
    return path


def _keep_all_fields(song):
    """Pass on an upload with its original name; gradio would pass on its path alone."""
    return song


def _heading_html(config, max_minutes, max_megabytes):
    training = f"The model was trained on {len(config['genres'])} genres"
    with suppress(KeyError, TypeError):
        training += f" from {escape(str(config['training']['collection']))}"
    return f"""<h1>Which genre is it?</h1>
    <p>Drop a recording of at most {max_minutes:g} minutes and {max_megabytes:g} MB, or record one.
    It is deleted as soon as it is classified.</p>
    <p>{training}{_accuracy_html(config)}.</p>"""


def _accuracy_html(config):
    """The accuracy of a model, or its mean average precision, if its config has it."""
    name = "mean average precision" if config.get("multi_label") else "accuracy"
    try:
        result = config["result"]
        tracks, value = int(result["tracks"]), float(result[name.replace(" ", "_")])
        protocol = escape(str(result["protocol"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return f"; its {name} is not known"
    return f"; on {tracks} test tracks ({protocol}) its {name} is {value:.0%}{_f1_text(result)}"


def _f1_text(result):
    """The macro F1 beside another metric, if the result has it."""
    try:
        return f", its macro F1 {float(result['macro_f1']):.0%}"
    except (KeyError, TypeError, ValueError, OverflowError):
        return ""
