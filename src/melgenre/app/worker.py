"""The process that decodes a visitor's recording and classifies it, which the server can end.

A recording comes from a stranger: it may hold a decoder for minutes, take all memory, or crash it.
"""

import base64
import io
import logging
import multiprocessing
import os
import signal
import sys
import threading
from html import escape
from pathlib import Path

import numpy as np

from ..data.audio import AudioError
from ..inference.classifier import GenreClassifier
from ..inference.model_folder import ModelError
from ..inference.timeline import plot_timeline

LOADING_SECONDS = 300  # that a model may take to load, or to come from the hub
MEMORY_BYTES = 2**30  # that a recording may take, beside what the loaded model takes

NO_RECORDING = "There is no recording here. Drop one, or record one."
TOO_SLOW = "takes too long to classify. Cut it, or try again later."
TOO_MUCH = "cannot be classified: it takes too much memory, or it is damaged. Convert it to wav."
NOT_READY = "cannot be classified at the moment. Try again later."


class Worker:
    """A model in a process of its own. A process that is too slow is killed and replaced.

    Parameters
    ----------
    model_folder : str or Path
        As for `GenreClassifier.load`.
    max_minutes : float
        Longest recording.
    max_seconds : float
        Longest time that an answer may take.

    Attributes
    ----------
    config : dict
        As `GenreClassifier.config`.

    Raises
    ------
    ModelError
        If the model cannot be loaded.
    """

    def __init__(self, model_folder, *, max_minutes, max_seconds):
        self.model_folder, self.max_minutes, self.max_seconds = (
            model_folder, max_minutes, max_seconds,
        )  # fmt: skip
        self.lock, self.stopped = threading.Lock(), False
        self._start()
        loaded = self._loaded()
        if isinstance(loaded, Exception):
            raise loaded
        self.config = loaded

    def answer(self, file, name):
        """Classify a recording.

        Parameters
        ----------
        file : Path
        name : str
            What the visitor calls it.

        Returns
        -------
        words, timeline : str
            HTML; of a recording that cannot be classified, `words` says why and `timeline` is "".
        """
        with self.lock:
            try:
                if not self.ready and not isinstance(self._loaded(), dict):
                    reason = NOT_READY
                else:
                    self.pipe.send((file, name))
                    if self.pipe.poll(self.max_seconds):
                        return self.pipe.recv()
                    reason = TOO_SLOW
            except (EOFError, OSError):
                reason = TOO_MUCH
            self._end()
            if not self.stopped:
                self._start()
            return sentence(reason, name), ""

    def stop(self):
        """End the process; an answer under way becomes a sentence."""
        self.stopped = True
        self._end()

    def _start(self):
        spawn = multiprocessing.get_context("spawn")  # a fork would copy the server's threads
        self.pipe, end = spawn.Pipe()
        self.ready = False
        self.process = spawn.Process(
            target=_work, args=(end, self.model_folder, self.max_minutes), daemon=True
        )
        self.process.start()
        end.close()  # so that the pipe ends with the process

    def _loaded(self):
        """The config of the model that the process has loaded, or what went wrong."""
        try:
            if not self.pipe.poll(LOADING_SECONDS):
                return ModelError(f"The model was not loaded within {LOADING_SECONDS} s.")
            loaded = self.pipe.recv()
        except (EOFError, OSError):
            return ModelError(
                "The process that loads the model has ended. Is there enough memory for it?"
            )
        self.ready = isinstance(loaded, dict)
        return loaded

    def _end(self):
        self.process.kill()
        self.process.join()


def analyse_recording(classifier, recording, *, max_minutes=15):
    """What `predict` and `timeline` say of a recording, and its images, decoding it once.

    Parameters
    ----------
    classifier : GenreClassifier
    recording
        As for `GenreClassifier.predict`.
    max_minutes : float
        Longest recording; what is behind it is not even decoded.

    Returns
    -------
    answer : melgenre.inference.classifier.Prediction
    timeline : pd.DataFrame
    images : list of np.ndarray

    Raises
    ------
    melgenre.data.audio.AudioError
        If the recording cannot be used, or is longer than that.
    """
    windows = _bounded(classifier.images(recording), max_minutes)
    times, images, probabilities, ood_score = classifier.predict_windows(windows)
    answer = classifier.aggregate(probabilities, ood_score)
    return answer, classifier.to_frame(times, probabilities, ood_score), images


def _bounded(windows, max_minutes):
    """The windows, unless they are too many."""
    for start, end, image in windows:
        if end > 60 * max_minutes:
            raise AudioError(f"longer than {max_minutes:g} min. Cut it.", "the recording")
        yield start, end, image


def _work(pipe, model_folder, max_minutes):
    """Load the model, then classify what comes through the pipe until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the server ends this one
    threading.Thread(target=_end_with_server, daemon=True).start()
    try:
        classifier = GenreClassifier.load(model_folder)
        _check(classifier)
    except (ValueError, OSError, ImportError) as error:
        pipe.send(error if isinstance(error, ModelError) else ModelError(str(error)))
        return
    pipe.send(classifier.config)
    _limit_memory()
    while True:
        try:
            file, name = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(classifier, file, name, max_minutes))


def _end_with_server():
    multiprocessing.parent_process().join()
    os._exit(1)  # whatever the other thread decodes


def _check(classifier):
    """Classify silence, so that a damaged model is found now, and all that is needed is loaded."""
    silence = np.zeros(2 * classifier.settings.sample_rate, np.float32)
    try:
        _prediction_html(classifier, "", (silence, classifier.settings.sample_rate), 1)
    except Exception as error:  # a damaged config brings about errors of any kind
        raise ModelError(
            f"The model in {classifier.folder.name} is damaged: it cannot classify silence "
            f"({type(error).__name__}: {error}). Export the learner again, or copy the whole "
            "folder again."
        ) from error


def _limit_memory():
    if sys.platform != "linux":  # elsewhere the limit is not enforced
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _answer(classifier, file, name, max_minutes):
    """The HTML of an answer, or of the sentence that says why there is none."""
    try:
        return _prediction_html(classifier, name, file, max_minutes)
    except AudioError as error:
        return sentence(error.reason, name), ""
    except MemoryError:
        return sentence(TOO_MUCH, name), ""
    except Exception:  # a page shows no traceback, whatever a file has brought about
        logging.exception("A recording could not be classified.")
        return sentence("cannot be classified. Convert it to wav.", name), ""


def sentence(words, name="", tag="p"):
    """HTML of a sentence, after the name of a recording."""
    # A name in Arabic or Hebrew runs the other way, and the words after it do not.
    named = f"<bdi>{escape(name)}</bdi>: " if name else ""
    return f'<{tag} role="status">{named}{escape(words)}</{tag}>'


def _prediction_html(classifier, name, recording, max_minutes):
    """The answer in words and figures, and the time line to be clicked."""
    answer, timeline, images = analyse_recording(classifier, recording, max_minutes=max_minutes)
    best, end = next(iter(answer)), timeline["end"].iloc[-1]
    words = f"{best}, {answer[best]:.0%}"
    if answer.is_ood:
        words = "unsure: unlike anything the model learned from"
    bars = "".join(
        f"<tr><td>{escape(str(genre))}</td><td><meter value={share:.4f}></meter></td>"
        f"<td>{share:.1%}</td></tr>"
        for genre, share in answer.items()
    )
    note = "<p>So these figures mean nothing:</p>" if answer.is_ood else ""
    note += "".join(f"<p>{escape(caveat)}</p>" for caveat in answer.caveats)
    # A recording shorter than an image is repeated in it.
    part = min(1, end / classifier.settings.duration)
    ax = plot_timeline(timeline, [one[:, : round(part * one.shape[1])] for one in images])
    png, box = io.BytesIO(), ax.get_position()
    ax.figure.savefig(png, format="png", dpi=110)
    seen = f"""<img alt="The genres along the recording" title="Click to hear it from there"
    style="width: 100%; cursor: pointer"
    src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">
    <input type="range" min="0" max="{end:.2f}" step="0.1" value="0" aria-label="Hear from second"
    data-left="{box.x0:.4f}" data-right="{box.x1:.4f}"
    style="margin-left: {box.x0:.2%}; width: {box.width:.2%}">"""
    return f"{sentence(words, name, 'h2')}{note}<table>{bars}</table>", seen
