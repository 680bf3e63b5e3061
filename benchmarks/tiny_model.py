"""Export a small network for small images: python benchmarks/tiny_model.py FOLDER SETTINGS."""

import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from melgenre.data.mel_settings import checked_settings, save_settings
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.export import export_learner
from melgenre.training.fit import fit
from melgenre.training.learner import genre_learner, predict_tracks


def main():
    settings = checked_settings(json.loads(sys.argv[2]))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MELGENRE_HOME"] = folder
        save_settings(settings, folder)
        rng, rows = np.random.default_rng(0), []
        for number in range(160):
            genre, image = f"genre {number % 10}", Path(folder, f"genre {number % 10}")
            image.mkdir(exist_ok=True)
            pixels = rng.integers(0, 256, (settings.n_mels, settings.columns), np.uint8)
            Image.fromarray(pixels).save(image / f"{number}.png")
            split = "valid" if number % 4 == 0 else "train"
            rows.append({"track_id": str(number), "genre": genre, "split": split,
                         "image": str(image / f"{number}.png")})  # fmt: skip
        learn = genre_learner(
            image_dataloaders(pd.DataFrame(rows)), "resnet18", "smoke-test", pretrained=False
        )
        with learn.no_bar(), learn.no_logging():
            fit(learn)
        predictions = predict_tracks(learn, learn.dls.valid_ds.items.reset_index(drop=True))
        result = {"protocol": "random", "accuracy": 0.1, "interval": [0, 0.2], "tracks": 40}
        run = replace(learn.training_run, learner=learn, predictions=predictions, result=result)
        export_learner(run, sys.argv[1])


if __name__ == "__main__":
    main()
