"""A page in the browser: drop a recording, read its genre, see it along the time line, hear it.

Whoever opens the page is a stranger: what they send is bounded in size, length and time, belongs
to nobody else, and is deleted once it is answered. The server asks nothing of the internet.
"""

import os
import signal
import socket
import tempfile
from contextlib import asynccontextmanager, suppress
from html import escape
from pathlib import Path

from ..errors import MissingPackageError
from ..files import temporary_folder
from .worker import NO_RECORDING, Worker, sentence

MOST_CONNECTIONS = 250  # at once; further ones get status 503
SESSIONS_KEPT = 100  # of visitors, the last ones
IDLE_SECONDS = 5  # after which a connection without a request is closed
ENDING_SECONDS = 2  # for replies under way, when the server ends

# The browser keeps its own copy of the song, since the server deletes the one it got.
KEEP_SONG = """async (song) => {
  URL.revokeObjectURL(window.melgenreSong);
  window.melgenreSong = song && URL.createObjectURL(await (await fetch(song.url)).blob());
  return [song];
}"""
ALLOW_ASKING = "(song) => ({__type__: 'update', interactive: !!song})"
PLAY_SONG = """(timeline) => {
  const audio = document.querySelector("#melgenre-song audio");
  if (timeline) audio.src = window.melgenreSong; else audio.removeAttribute("src");
  audio.hidden = !timeline;
  audio.nextElementSibling.hidden = true;
  audio.onerror = () => { audio.nextElementSibling.hidden = !audio.src; };
}"""
PLAYER = """<audio controls hidden></audio>
<p hidden>This browser does not play this kind of file; the answer holds all the same.</p>"""
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


def build_app(worker, uploads, *, max_minutes=15, max_megabytes=50, max_waiting=8):
    """The page. `serve` also bounds what reaches it; another server has to do so itself.

    Parameters
    ----------
    worker : melgenre.app.worker.Worker
    uploads : melgenre.app.guard.Uploads
    max_minutes, max_megabytes : float
        Longest and largest recording, as the page says.
    max_waiting : int
        Requests that may wait while one is answered; the next one is turned away.

    Returns
    -------
    gradio.Blocks

    Raises
    ------
    MissingPackageError
        Without gradio.
    """
    gradio = _import_gradio()

    def answer(song):
        file = Path(song.path if song else uploads.folder).resolve()
        # gradio takes characters out of a name; the browser also sends it as it was.
        name = (song and song.orig_name) or file.name
        # gradio has checked it, but a file that is deleted afterwards is checked twice.
        if file.parent.parent != uploads.folder or not file.is_file():
            return sentence(NO_RECORDING), "", None
        try:
            return *worker.answer(file, name), None
        finally:
            uploads.delete(file)

    with gradio.Blocks(title="melgenre", analytics_enabled=False) as app:
        gradio.HTML(_heading_html(worker.config, max_minutes, max_megabytes))
        # No buttons: one of gradio's uploads the recording to Hugging Face.
        song = gradio.Audio(type="filepath", label="A recording", editable=False, buttons=[])
        song.async_move_resource_to_block_cache = _stay
        song.preprocess = _as_sent
        button = gradio.Button("Which genre is it?", variant="primary", interactive=False)
        # An upload that is still under way is not there yet.
        song.change(None, song, button, js=ALLOW_ASKING)
        words = gradio.HTML(elem_id="melgenre-answer")
        timeline = gradio.HTML(js_on_load=SEEK)
        gradio.HTML(PLAYER, elem_id="melgenre-song")
        asked = button.click(answer, song, [words, timeline, song], js=KEEP_SONG)
        asked.then(None, timeline, None, js=PLAY_SONG)
    return app.queue(default_concurrency_limit=1, max_size=max_waiting, api_open=False)


def serve(model_folder, *, host="127.0.0.1", port=7860, allow_hosts=(), max_minutes=15,
          max_megabytes=50, max_seconds=60, max_waiting=8):  # fmt: skip
    """Show the page until Ctrl-C, to this machine alone unless `host` says otherwise.

    Parameters
    ----------
    model_folder : str or Path
        As for `GenreClassifier.load`.
    host : str
        "0.0.0.0" shows it to the whole network.
    port : int
    allow_hosts : sequence of str
        Names of this machine in the network, beside its own name and addresses.
    max_minutes, max_megabytes : float
        Longest and largest recording.
    max_seconds : float
        Longest time that an answer may take.
    max_waiting : int
        As for `build_app`.
    """
    gradio = _import_gradio()
    import uvicorn
    from starlette.applications import Starlette

    from .guard import HEAD_BYTES, Protocol, Uploads, guard, server_names

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that uploads go then, too
    max_bytes = int(max_megabytes * 1e6)
    with _listen(host, port) as listening, temporary_folder(tempfile.gettempdir()) as folder:
        folder = folder.resolve()
        os.environ["GRADIO_TEMP_DIR"] = os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        uploads = Uploads(folder, max_bytes)
        worker = Worker(model_folder, max_minutes=max_minutes, max_seconds=max_seconds)

        @asynccontextmanager
        async def lifespan(_):
            yield
            worker.stop()  # so that nobody waits for its answer

        page = build_app(
            worker, uploads, max_minutes=max_minutes, max_megabytes=max_megabytes,
            max_waiting=max_waiting,
        )  # fmt: skip
        # gradio keeps the page of each visitor in memory, and the answers that nobody fetches.
        page.state_session_capacity = SESSIONS_KEPT
        page._queue.pending_messages_per_session.max_size = SESSIONS_KEPT
        app = gradio.mount_gradio_app(
            Starlette(routes=uploads.routes, lifespan=lifespan), page, "/", server_name=host,
            server_port=port, footer_links=[], run_history=False, show_error=False,
            max_file_size=max_bytes, ssr_mode=False, enable_monitoring=False, pwa=False,
            mcp_server=False,
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        )  # fmt: skip
        (function,) = [number for number, one in page.fns.items() if one.fn]
        app = guard(
            app, folder, function=function, hosts=server_names(host, allow_hosts),
            max_bytes=max_bytes, answer_seconds=max_seconds * (max_waiting + 1),
        )  # fmt: skip
        config = uvicorn.Config(
            app, http=Protocol, ws="none", log_level="critical", server_header=False,
            limit_concurrency=MOST_CONNECTIONS, timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=ENDING_SECONDS, h11_max_incomplete_event_size=HEAD_BYTES,
        )  # fmt: skip
        where = "127.0.0.1" if host == "0.0.0.0" else host
        address = f"http://{where}:{listening.getsockname()[1]}/"
        print(f"melgenre listens on {address} (Ctrl-C ends it)", flush=True)
        try:
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[listening])
        finally:
            worker.stop()


def _listen(host, port):
    """A socket that listens there."""
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
    try:
        import gradio
    except ImportError:
        raise MissingPackageError('The page needs gradio: pip install "melgenre[app]"') from None
    return gradio


async def _stay(path):
    """An upload stays where it is; gradio would copy it, and fetch what is a web address."""
    return path


def _as_sent(song):
    """An upload with all that the browser sent of it; gradio would pass on its path alone."""
    return song


def _heading_html(config, max_minutes, max_megabytes):
    training = f"The model was trained on {len(config['genres'])} genres"
    with suppress(KeyError, TypeError):
        training += f" from {escape(str(config['training']['collection']))}"
    return f"""<h1>Which genre is it?</h1>
    <p>Drop a recording of at most {max_minutes:g} minutes and {max_megabytes:g} MB, or record one.
    It is deleted as soon as it is answered.</p>
    <p>{training}{_accuracy_html(config)}.</p>"""


def _accuracy_html(config):
    """The accuracy of a model, where its config has numbers for it."""
    try:
        result = config["result"]
        tracks, accuracy = int(result["tracks"]), float(result["accuracy"])
        protocol = escape(str(result["protocol"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return "; its accuracy is not known"
    return f"; on {tracks} test tracks ({protocol}) its accuracy is {accuracy:.0%}"
