"""A page in the browser: drop a recording, read its genre, see it along the time line, hear it.

Whoever opens the page is a stranger: what they send is bounded in size, length and time, belongs
to nobody else, and is deleted once it is answered. The server asks nothing of the internet.
"""

import base64
import io
import logging
import os
import signal
import tempfile
import time
from contextlib import suppress
from html import escape
from pathlib import Path

from .audio import AudioError
from .classifier import GenreClassifier
from .timeline import plot_timeline

FORGOTTEN_SECONDS = 900  # after which an upload is deleted that nobody asked about
LONGEST_NAME = 255  # of a file, in characters

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


def judge_recording(classifier, recording, *, max_minutes=15, max_seconds=120):
    """What `predict` and `timeline` say of a recording, and its pictures, decoding it once.

    Parameters
    ----------
    classifier : GenreClassifier
    recording
        As for `GenreClassifier.predict`.
    max_minutes : float
        Longest recording; what is behind it is not even decoded.
    max_seconds : float
        Longest time that the answer may take.

    Returns
    -------
    answer : melgenre.classifier.Answer
    timeline : pd.DataFrame
    pictures : list of np.ndarray

    Raises
    ------
    melgenre.audio.AudioError
        If the recording cannot be used, or is longer or takes longer than that.
    """
    late = time.monotonic() + max_seconds
    windows = _bounded(classifier.pictures(recording), max_minutes, late)
    times, pictures, probabilities, strangeness = classifier.judge_windows(windows)
    answer = classifier.conclude(probabilities, strangeness)
    return answer, classifier.tabulate(times, probabilities, strangeness), pictures


def _bounded(windows, max_minutes, late):
    """The windows, unless they are too many or too slow."""
    for start, end, picture in windows:
        if end > 60 * max_minutes:
            raise AudioError(f"longer than {max_minutes:g} min. Cut it.", "the recording")
        if time.monotonic() > late:
            reason = "takes too long to classify. Cut it, or try again later."
            raise AudioError(reason, "the recording")
        yield start, end, picture


def build_app(classifier, *, max_minutes=15, max_megabytes=50, max_seconds=120, max_waiting=8):
    """The page. `serve` also bounds what reaches it; another server has to do so itself.

    Parameters
    ----------
    classifier : GenreClassifier
    max_minutes, max_megabytes : float
        Longest and largest recording.
    max_seconds : float
        Longest time that an answer may take.
    max_waiting : int
        Requests that may wait while one is answered; the next one is turned away.

    Returns
    -------
    gradio.Blocks

    Raises
    ------
    ImportError
        Without gradio.
    """
    gradio = _import_gradio()
    folder = Path(gradio.utils.get_upload_folder()).resolve()

    def answer(song):
        file = Path(song.path if song else folder).resolve()
        # gradio takes characters out of a name; the browser also sends it as it was.
        name = ((song and song.orig_name) or file.name)[-LONGEST_NAME:]
        # gradio has checked it, but a file that is deleted afterwards is checked twice.
        if not file.is_relative_to(folder) or not file.is_file():
            return _sentence("There is no recording here. Drop one, or record one."), "", None
        try:
            if file.stat().st_size > max_megabytes * 1e6:
                raise AudioError(f"larger than {max_megabytes:g} MB. Cut it.", name)
            judged = judge_recording(
                classifier, file, max_minutes=max_minutes, max_seconds=max_seconds
            )
            return *_judged_html(name, *judged, classifier.settings.duration), None
        except AudioError as error:
            return _sentence(error.reason, name), "", None
        except Exception:  # a page shows no traceback, whatever a file has brought about
            logging.exception("A recording could not be classified.")
            return _sentence("cannot be classified. Convert it to wav.", name), "", None
        finally:
            file.unlink(missing_ok=True)
            with suppress(OSError):  # another upload of the same sound by another name
                file.parent.rmdir()

    with gradio.Blocks(title="melgenre", analytics_enabled=False,
                       delete_cache=(60, FORGOTTEN_SECONDS)) as app:  # fmt: skip
        gradio.HTML(_heading_html(classifier, max_minutes, max_megabytes))
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


def serve(model_folder, *, host="127.0.0.1", port=7860, max_megabytes=50, **limits):
    """Show the page until Ctrl-C, to this machine alone unless `host` says otherwise.

    Parameters
    ----------
    model_folder : str or Path
        As for `GenreClassifier.load`.
    host : str
        "0.0.0.0" shows it to the whole network.
    port : int
    max_megabytes, **limits
        As for `build_app`.
    """
    gradio = _import_gradio()
    from starlette.middleware import Middleware

    from .app_guard import guard

    classifier, max_bytes = GenreClassifier.load(model_folder), int(max_megabytes * 1e6)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that uploads go then, too
    with tempfile.TemporaryDirectory(prefix="melgenre-", ignore_cleanup_errors=True) as folder:
        folder = os.environ["GRADIO_TEMP_DIR"] = os.path.realpath(folder)
        app = build_app(classifier, max_megabytes=max_megabytes, **limits)
        limited = Middleware(guard, folder=folder, max_bytes=max_bytes)
        app.launch(
            server_name=host, server_port=port, share=False, quiet=True, ssr_mode=False,
            pwa=False, enable_monitoring=False, mcp_server=False, run_history=False,
            footer_links=[], max_file_size=max_bytes, prevent_thread_lock=True,
            app_kwargs={"middleware": [limited]},
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        )  # fmt: skip
        print(f"melgenre listens on {app.local_url} (Ctrl-C ends it)", flush=True)
        app.block_thread()


def _import_gradio():
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported
    try:
        import gradio
    except ImportError:
        raise ImportError('The page needs gradio: pip install "melgenre[app]"') from None
    return gradio


async def _stay(path):
    """An upload stays where it is; gradio would copy it, and fetch what is a web address."""
    return path


def _as_sent(song):
    """An upload with all that the browser sent of it; gradio would pass on its path alone."""
    return song


def _heading_html(classifier, max_minutes, max_megabytes):
    training, result = classifier.config["training"], classifier.config["result"]
    return f"""<h1>Which genre is it?</h1>
    <p>Drop a recording of at most {max_minutes:g} minutes and {max_megabytes:g} MB, or record one.
    It is deleted as soon as it is answered.</p>
    <p>The model learned {len(classifier.genres)} genres from
    {escape(str(training["collection"]))}; of {result["tracks"]} tracks that it had not heard
    ({escape(str(result["protocol"]))}) it named {result["accuracy"]:.0%} right.</p>"""


def _sentence(words, name="", tag="p"):
    # A name in Arabic or Hebrew runs the other way, and the words after it do not.
    named = f"<bdi>{escape(name)}</bdi>: " if name else ""
    return f'<{tag} role="status">{named}{escape(words)}</{tag}>'


def _judged_html(name, answer, timeline, pictures, duration):
    """The answer in words and figures, and the time line to be clicked."""
    best, end = next(iter(answer)), timeline["end"].iloc[-1]
    words = f"{best}, {answer[best]:.0%}"
    if answer.unsure:
        words = "unsure: unlike anything the model learned from"
    bars = "".join(
        f"<tr><td>{escape(genre)}</td><td><meter value={share:.4f}></meter></td>"
        f"<td>{share:.1%}</td></tr>"
        for genre, share in answer.items()
    )
    note = "<p>So these figures mean nothing:</p>" if answer.unsure else ""
    note += "".join(f"<p>{escape(caveat)}</p>" for caveat in answer.caveats)
    # A recording shorter than a picture is repeated in it.
    part = min(1, end / duration)
    ax = plot_timeline(timeline, [one[:, : round(part * one.shape[1])] for one in pictures])
    png, box = io.BytesIO(), ax.get_position()
    ax.figure.savefig(png, format="png", dpi=110)
    seen = f"""<img alt="The genres along the recording" title="Click to hear it from there"
    style="width: 100%; cursor: pointer"
    src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">
    <input type="range" min="0" max="{end:.2f}" step="0.1" value="0" aria-label="Hear from second"
    data-left="{box.x0:.4f}" data-right="{box.x1:.4f}"
    style="margin-left: {box.x0:.2%}; width: {box.width:.2%}">"""
    return f"{_sentence(words, name, 'h2')}{note}<table>{bars}</table>", seen
