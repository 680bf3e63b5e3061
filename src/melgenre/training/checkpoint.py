"""Checkpoints: the state of a training after each epoch, so that a killed run resumes."""

import hashlib
import random
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from fastai.vision.all import (
    Callback,
    CancelEpochException,
    Learner,
    get_model,
    noop,
    num_distrib,
    rank_distrib,
)

from ..data.image_files import image_key
from ..errors import MelgenreWarning
from ..files import atomic_write, project_folder, sweep
from .precision import training_dtype
from .recipes import get_recipe

SECONDS_BETWEEN = 10
"""Least time between two checkpoints: to write the weights takes up to a second."""

RECORDED = ("values", "losses", "iters", "lrs")
"""Attributes of fastai's recorder that are saved."""


def checkpoint_file(learn: Learner) -> Path:
    """The file for the checkpoints of one training, in `data/checkpoints` of the project.

    Its name is a hash of all that the result depends on: the initial weights, the images with their
    genres and split, the recipe and seed, device, precision, number of threads and processes, and
    version of torch.

    Parameters
    ----------
    learn
        Of `melgenre.training.learner.genre_learner`, before it is trained.
    """
    digest = hashlib.sha256()
    run = learn.training_run
    device = learn.dls.device
    settings = (get_recipe(run.recipe), run.seed, run.weights, learn.dls.bs)
    # Without the number of the GPU, which each of several processes has another of.
    machine = (device.type, training_dtype(device.type), torch.get_num_threads(), torch.__version__)
    digest.update(repr((*settings, *machine, max(1, num_distrib()))).encode())
    for tensor in learn.model.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    for part in (learn.dls.train_ds, learn.dls.valid_ds):
        # The name of the part, since the best epoch is chosen on `valid` but not on `test`.
        for image, *names in part.items[["image", "genre", "split"]].itertuples(index=False):
            digest.update("/".join([image_key(image), *map(str, names)]).encode())
    return project_folder() / "data" / "checkpoints" / f"{digest.hexdigest()[:16]}.pth"


class Checkpoint(Callback):
    """Save a training after its epochs, and resume it from the last saved one.

    One callback is used for all calls of fastai's `fit` in a recipe: it counts their epochs
    together. The network, the optimiser, the random numbers and the recorder are restored, so a
    resumed training ends with the same weights as an uninterrupted one on the same machine. Of
    several processes, the first one saves, and all of them restore its state.

    Parameters
    ----------
    file
        Of `checkpoint_file`.

    Attributes
    ----------
    seconds
        Duration of the interrupted training.
    """

    order = 100  # after the recorder and the progress bar

    def __init__(self, file: Path):
        self.file, self.epochs = file, 0
        self.started = self.saved = time.monotonic()
        self.state = _load(file)
        self.resumed, self.seconds = 0, 0.0
        if self.state:
            self.resumed, self.seconds = self.state["epochs"], self.state["seconds"]
        if self.resumed:
            sentence = f"An interrupted training resumes after epoch {self.resumed}."
            warnings.warn(sentence, MelgenreWarning, stacklevel=4)

    def before_epoch(self) -> None:
        """Skip an epoch that was finished before the interruption."""
        if self.epochs < self.resumed:
            self.logger = self.learn.logger
            self.learn.logger = noop
            raise CancelEpochException

    def after_epoch(self) -> None:
        """Restore the state after the last skipped epoch; save it after the others."""
        self.epochs += 1
        if self.epochs <= self.resumed:
            self.learn.logger = self.logger
            if self.epochs == self.resumed:
                self._restore()
        elif not rank_distrib() and time.monotonic() - self.saved > SECONDS_BETWEEN:
            self._save()
            self.saved = time.monotonic()

    def _save(self):
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            sweep(self.file.parent)
            with atomic_write(self.file) as part:
                torch.save(self._state(), part)
        except (OSError, RuntimeError) as error:  # torch's own for a full disk
            warnings.warn(
                f"The checkpoint cannot be saved ({str(error).splitlines()[0]}). Training goes on; "
                "if it is interrupted, it starts again.",
                MelgenreWarning,
                stacklevel=2,
            )

    def _state(self):
        recorder = self.learn.recorder
        return {
            "epochs": self.epochs,
            "seconds": self.seconds + time.monotonic() - self.started,
            "model": get_model(self.learn.model).state_dict(),
            # Without the learning rates, which the schedule sets for each batch.
            "optimiser": self.learn.opt.state_dict()["state"],
            "random": random.getstate(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "loaders": [dl.rng.getstate() for dl in self.learn.dls.loaders],
            "recorder": {name: [_plain(x) for x in getattr(recorder, name)] for name in RECORDED},
            "smooth_loss": (recorder.smooth_loss.count, _plain(recorder.smooth_loss.val)),
            "callbacks": {name: callback.state_dict() for name, callback in self._others()},
        }

    def _others(self):
        """Name and object of the callbacks that have a state of their own."""
        # Of their class: fastai's callbacks have all attributes of their learner.
        return [(one.name, one) for one in self.learn.cbs if hasattr(type(one), "state_dict")]

    def _restore(self):
        state, self.state = self.state, None
        get_model(self.learn.model).load_state_dict(state["model"])
        optimiser = self.learn.opt.state_dict()
        self.learn.opt.load_state_dict({**optimiser, "state": state["optimiser"]})
        random.setstate(state["random"])
        torch.set_rng_state(state["torch"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])
        for dl, position in zip(self.learn.dls.loaders, state["loaders"], strict=True):
            dl.rng.setstate(position)
        for name, values in state["recorder"].items():
            setattr(self.learn.recorder, name, values)
        smooth = self.learn.recorder.smooth_loss
        smooth.count, loss = state["smooth_loss"]
        smooth.val = torch.tensor(loss)
        for name, callback in self._others():
            callback.load_state_dict(state["callbacks"][name])


def _plain(value):
    """A recorder's value as numbers, which load without unpickling."""
    return np.asarray(value, dtype=float).tolist()


def _load(file):
    """The saved state; None if there is none, or if it is damaged."""
    if not file.exists():
        return None
    try:
        # Only tensors and numbers: nothing in the file can run code.
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises errors of any kind
        warnings.warn(
            f"The checkpoint {file.name} is damaged ({type(error).__name__}). The training starts "
            "again.",
            MelgenreWarning,
            stacklevel=4,
        )
        return None
