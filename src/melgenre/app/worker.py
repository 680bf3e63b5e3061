"""Decode and classify recordings in a process of its own, which the server can end.

Recordings are untrusted: one may occupy a decoder for minutes, take all memory, or crash it.
"""

from __future__ import annotations

import base64
import io
import logging
import multiprocessing
import os
import signal
import sys
import threading
from html import escape
from itertools import islice
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..data.audio import AudioError
from ..inference.classifier import GenreClassifier, Recording
from ..inference.model_folder import ModelError
from ..inference.prediction import Analysis

LOADING_SECONDS = 300  # to load a model, or to download it from the hub
MOST_ROWS = 20  # of genres with their probabilities
MEMORY_BYTES = 2**30  # for a recording, beside the loaded model

NO_RECORDING = "There is no recording here. Drop one, or record one."
TOO_SLOW = "takes too long to classify. Cut it, or try again later."
TOO_MUCH = "cannot be classified: it takes too much memory, or it is damaged. Convert it to wav."
NOT_READY = "cannot be classified at the moment. Try again later."


class Worker:
    """A model in a process of its own. A process that is too slow is killed and replaced.

    Parameters
    ----------
    model_folder
        As for `GenreClassifier.load`.
    max_minutes
        Longest recording.
    max_seconds
        Longest time that a recording may take.

    Attributes
    ----------
    config : dict
        As `GenreClassifier.config`.

    Raises
    ------
    ModelError
        If the model cannot be loaded.
    """

    def __init__(self, model_folder: str | Path, *, max_minutes: float, max_seconds: float):
        self.model_folder = model_folder
        self.max_minutes, self.max_seconds = max_minutes, max_seconds
        self.lock, self.stopped = threading.Lock(), False
        self._start()
        loaded = self._loaded()
        if isinstance(loaded, Exception):
            raise loaded
        self.config = loaded

    def classify(self, file: Path, name: str) -> tuple[str, str]:
        """Classify a recording.

        Parameters
        ----------
        name
            The visitor's name of the file.

        Returns
        -------
        prediction, timeline : str
            HTML. If the recording cannot be classified, the first is the reason, and the second
            is empty.
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
        """End the process. A recording that is being classified gets an error sentence."""
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
        """The config of the model that the process has loaded, or the error."""
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


def _work(pipe, model_folder, max_minutes):
    """Load the model, then classify recordings from the pipe until the server ends."""
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
        pipe.send(_classify(classifier, file, name, max_minutes))


def _end_with_server():
    multiprocessing.parent_process().join()
    os._exit(1)  # at once, even if the other thread is decoding


def _check(classifier):
    """Classify silence: it detects a damaged model, and loads all modules that are needed."""
    silence = np.zeros(2 * classifier.settings.sample_rate, np.float32)
    try:
        _html(classifier.analyze((silence, classifier.settings.sample_rate)), "")
    except Exception as error:  # a damaged network fails with errors of many types
        raise ModelError(
            f"The model in {classifier.folder.name} is damaged: it cannot classify silence "
            f"({type(error).__name__}: {error}). Export the learner again, or copy the whole "
            "folder again."
        ) from error


def _limit_memory():
    if sys.platform != "linux":  # other systems do not enforce the limit
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _classify(
    classifier: GenreClassifier, recording: Recording, name: str, max_minutes: float
) -> tuple[str, str]:
    """The result of `Worker.classify`."""
    try:
        return _html(classifier.analyze(recording, max_minutes=max_minutes), name)
    except AudioError as error:
        return sentence(error.reason, name), ""
    except MemoryError:
        return sentence(TOO_MUCH, name), ""
    except Exception:  # a page shows no traceback, whatever type of error a file causes
        logging.exception("A recording could not be classified.")
        return sentence("cannot be classified. Convert it to wav.", name), ""


def sentence(words: str, name: str = "", tag: str = "p") -> str:
    """HTML of a sentence, after the name of a recording."""
    # `bdi`: a name in Arabic or Hebrew is written from right to left, the words after it are not.
    named = f"<bdi>{escape(name)}</bdi>: " if name else ""
    return f'<{tag} role="status">{named}{escape(words)}</{tag}>'


def _html(analysis: Analysis, name: str) -> tuple[str, str]:
    """The prediction as a table of probabilities, and the clickable timeline."""
    prediction = analysis.prediction
    words = "; ".join(f"{genre}, {prediction[genre]:.0%}" for genre in prediction.genres)
    if prediction.is_ood:
        words = "unsure: unlike the music that the model was trained on"
    rows = "".join(
        f"<tr><td>{escape(str(genre))}</td><td><meter value={share:.4f}></meter></td>"
        f"<td>{share:.1%}</td></tr>"
        for genre, share in _most_probable(prediction).items()
    )
    notes = ["Not meaningful for this recording:"] if prediction.is_ood else []
    notes = "".join(f"<p>{escape(note)}</p>" for note in [*notes, *prediction.caveats])
    table = f"{sentence(words, name, 'h2')}{notes}<table>{rows}</table>"
    return table, _timeline_html(analysis)


def _most_probable(prediction):
    """The probabilities that a page has room for, and the sum of the others."""
    if len(prediction) <= MOST_ROWS:
        return prediction
    named = dict(islice(prediction.items(), MOST_ROWS - 1))
    return named | {
        f"{len(prediction) - len(named)} other genres": max(0.0, 1 - sum(named.values()))
    }


def _timeline_html(analysis):
    ax = analysis.plot(Figure(figsize=(10, 4)))  # not of pyplot, which keeps figures in memory
    png, box, end = io.BytesIO(), ax.get_position(), analysis.times[-1][1]
    ax.figure.savefig(png, format="png", dpi=110)
    return f"""<img alt="The genres along the recording" title="Click to play from there"
    style="width: 100%; cursor: pointer"
    src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">
    <input type="range" min="0" max="{end:.2f}" step="0.1" value="0" aria-label="Play from second"
    data-left="{box.x0:.4f}" data-right="{box.x1:.4f}"
    style="margin-left: {box.x0:.2%}; width: {box.width:.2%}">"""
