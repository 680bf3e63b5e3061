"""Train on a table of images, in each process of a launch: `test_distributed.py` starts this.

distributed_script.py TRACKS.csv FOLDER [killed]

Each process writes what it ends with to `FOLDER/<rank>.json`. With `killed`, the model is exported,
the same training starts again, and the last process is killed after its second epoch of all layers.
Without it, two more trainings fail: one with another seed in each process, and one that the last
process leaves. Their messages are in `FOLDER/errors.json`.
"""

import hashlib
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from fastai.vision.all import Callback, num_distrib, rank_distrib

from melgenre.data.splits import held_out
from melgenre.evaluation.metrics import evaluate
from melgenre.networks import BUILT_IN
from melgenre.training import checkpoint
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.distributed import ProcessError
from melgenre.training.export import export_learner
from melgenre.training.fit import discard_checkpoint, fit
from melgenre.training.learner import genre_learner, predict_tracks


class KillLast(Callback):
    """Kill the last process when the checkpoint of the second epoch is written."""

    order, epochs = 101, 0

    def after_epoch(self):
        self.epochs += 1
        if self.epochs == 2 and rank_distrib() == num_distrib() - 1:
            while not any(Path(os.environ["MELGENRE_HOME"], "data", "checkpoints").glob("*.pth")):
                time.sleep(0.05)
            time.sleep(0.5)  # until the second epoch's has replaced that of the first
            os.kill(os.getpid(), signal.SIGKILL)


class LeaveLast(Callback):
    """End the last process after its first epoch, without an error that a launcher could notice."""

    def after_epoch(self):
        if rank_distrib() == num_distrib() - 1:
            os._exit(0)


def train(tracks, *callbacks, seed=0):
    learn = genre_learner(image_dataloaders(tracks), BUILT_IN, "fine-tune-texture@3", seed=seed)
    learn.add_cbs(callbacks)
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    return learn


def digest(learn):
    """Hash of all weights and statistics of a network."""
    found = hashlib.sha256()
    for tensor in learn.model.state_dict().values():
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def main(table, folder, *killed):
    checkpoint.SECONDS_BETWEEN = 0
    tracks = pd.read_csv(table)
    learn = train(tracks)
    values = [list(map(float, epoch)) for epoch in learn.recorder.values]
    predictions = predict_tracks(learn, held_out(tracks))
    run = replace(
        learn.training_run,
        learner=learn,
        result=evaluate(predictions, "random"),
        predictions=predictions,
    )
    checkpoints = list((Path(os.environ["MELGENRE_HOME"]) / "data" / "checkpoints").iterdir())
    if killed:
        export_learner(run, folder / "model")
    discard_checkpoint(learn)
    found = {
        "weights": digest(learn),
        "values": values,
        "steps": len(learn.recorder.losses),
        "tracks": list(predictions["track_id"]),
        "probabilities": np.round(predictions.filter(like="p_"), 6).to_numpy().tolist(),
        "checkpoints": len(checkpoints),
        "process": os.getpid(),
    }
    (folder / f"{rank_distrib()}.json").write_text(json.dumps(found))
    if killed:
        train(tracks, KillLast())
    errors = []
    for callbacks, seed in ([], rank_distrib()), ([LeaveLast()], 0):
        try:
            train(tracks, *callbacks, seed=seed)
        except ProcessError as error:
            errors.append(str(error))
    (folder / "errors.json").write_text(json.dumps(errors))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
