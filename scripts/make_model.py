"""Train the model that is in the package, on GTZAN.

python scripts/make_model.py [--out FOLDER]    (needs all of GTZAN)
"""

import argparse
import tempfile
import warnings
from pathlib import Path

from fastai.vision.all import noop

from melgenre.data.collection import describe_collection, load_collection
from melgenre.data.duplicates import find_duplicates
from melgenre.evaluation.metrics import format_score
from melgenre.experiments import train_and_evaluate
from melgenre.features.images import extract_melspectrograms, images_folder
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.model_folder import built_in_model
from melgenre.networks import BUILT_IN
from melgenre.notebook import show_warnings_as_sentences
from melgenre.training.calibration import calibrate
from melgenre.training.export import export_learner

HOW = "the validation part, by the same training on the training part alone"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=built_in_model())
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module=r"(torch|fastai)\.")
    show_warnings_as_sentences()

    tracks = load_collection()
    print(describe_collection(tracks))
    tracks = find_duplicates(extract_melspectrograms(tracks, images_folder(tracks)))

    def train(protocol):
        return train_and_evaluate(tracks, protocol, BUILT_IN, "discriminant", seed=0, log=noop)

    # The test part must not calibrate, and the final training holds out no other.
    calibration = {**calibrate(train("fault-filtered").learner), "how": HOW}
    run = train("fault-filtered-train+valid")
    with tempfile.TemporaryDirectory() as folder:
        exported = export_learner(run, Path(folder, "gtzan"), calibration=calibration)
        GenreClassifier.load(exported).save(options.out)  # without the pickle and the split
    print(f"{options.out}: {format_score(run.result)}")


if __name__ == "__main__":
    main()
