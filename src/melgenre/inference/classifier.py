"""Load an exported model and predict the genre of any recording.

The folder that `melgenre.training.export` writes is all that is needed. Loading it unpickles
nothing, so no code in the folder is run. By ONNX Runtime it needs neither torch nor fastai.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..data.audio import AudioError, iter_windows
from ..data.mel_settings import MelSettings
from ..features.melspectrogram import melspectrogram_image
from ..files import atomic_folder, sweep
from ..paths import absolute
from .backends import Network, load_onnx, load_torch
from .hub import find_folder, is_remote, upload
from .model_folder import (
    FEWEST_CLIPS,
    ONNX,
    PRIVATE,
    WEIGHTS,
    ModelError,
    built_in_model,
    check_replaceable,
    copy_others,
    damaged_model,
    default_model,
    fingerprint,
    read_config,
)
from .prediction import Analysis, Prediction

if TYPE_CHECKING:
    import pandas as pd
    from huggingface_hub import CommitInfo
    from matplotlib.axes import Axes

CPU_BATCH, GPU_BATCH = 2, 32
"""Windows per batch. On a CPU, larger batches take more memory and are not faster."""

BUILT_IN = ""
"""Names the model in this package, which each machine has in a folder of its own."""

Recording = str | Path | bytes | BinaryIO | tuple[np.ndarray, int]
"""A file, its content, or samples [shape=(n,) or (n, channels)] with their rate in Hz."""


class GenreClassifier:
    """A trained network that predicts the genre of recordings.

    Attributes
    ----------
    predict_proba : callable
        Images [shape=(batch, n_mels, columns), dtype=float32] between 0 and 1 -> probabilities
        [shape=(batch, n_genres)] and out-of-distribution scores [shape=(batch,)].
    genres : list of str
    settings : MelSettings
        Of the images that the network was trained on.
    config : dict
        The content of the folder's `config.json`: training, result, calibration.
    folder : Path
    backend, device : str
        What runs the network ("onnx" or "torch"), and where.
    ood_threshold : float
        A recording with a greater out-of-distribution score is "unsure". Infinite if the model
        was calibrated on too few clips.
    thresholds : dict of str to float, or None
        Of the probability of each genre, if the model predicts several genres per song.
    caveats : list of str
        Sentences that a user should read with each prediction.
    fingerprint : str
        Twelve characters that differ for any two models.

    Examples
    --------
    ::

        classifier = GenreClassifier.load()  # the built-in model
        classifier.predict("song.mp3")  # {'jazz': 0.91, 'blues': 0.06, ...}
        classifier.analyze("song.mp3").plot()
        classifier.embed("song.mp3")  # for similar songs: see `melgenre embed`
    """

    def __init__(
        self,
        network: Network,
        config: dict,
        folder: Path,
        backend: str,
        device: str = "cpu",
        *,
        source: str | None = None,
        threads: int = 0,
    ):
        self.predict_proba, self._embed = network
        self.config, self.folder = config, folder
        self.backend, self.device = backend, device
        self._source, self._threads = source or absolute(folder), threads
        self.genres = list(config["genres"])
        self.settings = MelSettings(**config["mel_settings"])
        ood_threshold = config["calibration"]["ood_threshold"]
        self.ood_threshold = np.inf if ood_threshold is None else ood_threshold
        self.thresholds = config["calibration"]["thresholds"] if config["multi_label"] else None
        self.caveats = _caveats(config)
        self.fingerprint = fingerprint(folder, config)

    @classmethod
    def load(
        cls, model: str | Path | None = None, *, backend: str | None = None, device: str = "cpu"
    ) -> GenreClassifier:
        """Rebuild the network of a model folder, on the disk or on the Hugging Face hub.

        Parameters
        ----------
        model
            A folder with `config.json`, and `model.safetensors` or `model.onnx`; or
            `hf:owner/name`, a repository on the hub, of which the two files that are needed are
            downloaded once; `hf:owner/name@v1` is a branch, tag or commit of it; or a URL of such a
            folder, such as `s3://bucket/model`. By default, the model in this package is loaded,
            and a warning names it with its accuracy.
        backend
            "onnx" (ONNX Runtime, which starts at once and needs no torch) or "torch". The default
            is ONNX Runtime on a CPU, if it is installed and the folder has a `model.onnx`; else
            torch.
        device
            Where the network runs, as torch names it: "cpu", "cuda", "cuda:1", …

        Raises
        ------
        ModelError
            If a file is missing, damaged, or written by a newer melgenre, or if the device is not
            available.
        """
        if model is None:
            model = default_model()
        by_onnx = backend == "onnx" or (
            backend is None and device == "cpu" and importlib.util.find_spec("onnxruntime")
        )
        folder = find_folder(model, ONNX if by_onnx else WEIGHTS)
        if by_onnx and backend is None and not (folder / ONNX).exists():
            by_onnx, folder = False, find_folder(model, WEIGHTS)
        config = read_config(folder)
        try:
            if by_onnx:
                network = load_onnx(folder, config, device=device)
            else:
                network = load_torch(folder, config, device)
        except ModelError:
            if read_config(folder) == config:
                raise
            # The folder was replaced by another export while it was read.
            return cls.load(model, backend=backend, device=device)
        return cls(
            network,
            config,
            folder,
            "onnx" if by_onnx else "torch",
            device,
            source=str(model) if is_remote(model) else None,
        )

    def __reduce__(self) -> tuple:
        """A worker process loads the model by its name, once."""
        model = BUILT_IN if self.folder == built_in_model() else self._source
        return _load_once, (model, self.backend, self.device, self._threads, self.fingerprint)

    def on_one_core(self) -> GenreClassifier:
        """The same model with a single thread, to classify several recordings in parallel.

        One recording per core is faster than one recording after the other on all cores. Only
        ONNX Runtime on a CPU has such a limit; otherwise the classifier itself is returned.
        """
        if self.backend != "onnx" or self.device != "cpu":
            return self
        network = load_onnx(self.folder, self.config, threads=1)
        return GenreClassifier(
            network, self.config, self.folder, self.backend, source=self._source, threads=1
        )

    def save(self, folder: str | Path) -> Path:
        """Copy the model into another folder, without `learner.pkl` and `split.csv`.

        The first can hold code, and the second names tracks of the training set.

        Returns
        -------
        The other folder.
        """
        check_replaceable(folder)
        sweep(Path(folder).parent)
        with atomic_folder(folder) as part:
            copy_others(folder, part)
            ignore = shutil.ignore_patterns(*PRIVATE)
            shutil.copytree(self.folder, part, ignore=ignore, dirs_exist_ok=True)
        return Path(folder)

    def push_to_hub(
        self, name: str, *, private: bool = True, token: str | None = None
    ) -> CommitInfo:
        """Upload the model to the Hugging Face hub; `GenreClassifier.load(name)` loads it again.

        Parameters
        ----------
        name
            The repository, `hf:owner/name`. It is created if it does not exist.
        private
            Whether a new repository is private.
        token
            As for `huggingface_hub`; by default the one that `hf auth login` has saved.
        """
        return upload(self.folder, name, private=private, token=token)

    def predict(self, recording: Recording) -> Prediction:
        """The genres of a whole recording, the most probable first.

        Parameters
        ----------
        recording
            As for `analyze`.

        Returns
        -------
        The probability of each genre; `.genre` is the first one, or "unsure". Of a multi-label
        model, `.genres` are those above their thresholds.

        Raises
        ------
        melgenre.data.audio.AudioError
            If the recording cannot be used.
        """
        return self.analyze(recording).prediction

    def timeline(self, recording: Recording) -> pd.DataFrame:
        """The genres along a recording, one row per window: see `Analysis.timeline`."""
        return self.analyze(recording).timeline

    def plot_timeline(self, recording: Recording) -> Axes:
        """Plot the genres along a recording: see `Analysis.plot`."""
        return self.analyze(recording).plot()

    def analyze(self, recording: Recording, *, max_minutes: float = np.inf) -> Analysis:
        """Decode a recording once, and predict the genres of each of its windows and of the whole.

        A recording that is longer than a clip is cut into windows of a clip's length; memory
        stays flat, because no more than a few windows of samples are held at a time.

        Parameters
        ----------
        recording
            See `melgenre.data.audio.iter_windows`.
        max_minutes
            Longest recording. Decoding stops there.

        Raises
        ------
        melgenre.data.audio.AudioError
            If the recording cannot be used, or is too long.
        """
        times, images, outputs = [], [], []
        for some in self._iter_batches(recording, max_minutes):
            times += [time for time, _ in some]
            images += [image for _, image in some]
            outputs.append(self.predict_images(images[-len(some) :]))
        probabilities, ood_scores = map(np.concatenate, zip(*outputs, strict=True))
        return Analysis(self, np.array(times), images, probabilities, ood_scores)

    def embed(self, recording: Recording) -> np.ndarray:
        """The embedding of a recording: similar recordings have embeddings of a similar direction.

        It is the mean over the windows of what the network computes before its last layer: the
        values from which that layer predicts the genres. For a head of a single layer these are
        the features of the body.

        Parameters
        ----------
        recording
            As for `analyze`.

        Returns
        -------
        np.ndarray [shape=(d,), dtype=float32]

        Raises
        ------
        melgenre.data.audio.AudioError
            If the recording cannot be used.
        ModelError
            If the model runs by ONNX Runtime and was exported in format 5 or earlier.
        """
        batches = self._iter_batches(recording, np.inf)
        embeddings = [self.embed_images([image for _, image in some]) for some in batches]
        return np.concatenate(embeddings).mean(axis=0)

    def _iter_batches(
        self, recording: Recording, max_minutes: float
    ) -> Iterator[list[tuple[tuple[float, float], np.ndarray]]]:
        """The windows of `_iter_images`, as many at a time as the device predicts together."""
        windows = self._iter_images(recording, max_minutes)
        batch = CPU_BATCH if self.device == "cpu" else GPU_BATCH
        while some := list(islice(windows, batch)):
            yield some

    def _iter_images(
        self, recording: Recording, max_minutes: float
    ) -> Iterator[tuple[tuple[float, float], np.ndarray]]:
        """Start and end in seconds, and the image, of each window."""
        rate, settings = self.settings.sample_rate, self.settings
        for start, end, y in iter_windows(recording, settings.duration, sample_rate=rate):
            if end > 60 * max_minutes:
                raise AudioError(f"longer than {max_minutes:g} min. Cut it.", "the recording")
            yield (start, end), melspectrogram_image(y, settings)

    def predict_images(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Predict the genres of a batch of mel-spectrogram images.

        Parameters
        ----------
        images : sequence of np.ndarray [shape=(n_mels, columns), dtype=uint8]

        Returns
        -------
        probabilities : np.ndarray [shape=(n, n_genres)]
        ood_scores : np.ndarray [shape=(n,)]

        Raises
        ------
        ModelError
            If the network fails, or returns NaN or infinite values.
        """
        outputs = self._run(self.predict_proba, images)
        if not all(np.isfinite(output).all() for output in outputs):
            raise damaged_model(self.folder, "it gives probabilities that are not finite")
        return outputs

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The embeddings of a batch of mel-spectrogram images: see `embed`.

        Parameters
        ----------
        images : sequence of np.ndarray [shape=(n_mels, columns), dtype=uint8]

        Returns
        -------
        np.ndarray [shape=(n, d), dtype=float32]

        Raises
        ------
        ModelError
            If the model has no embeddings, or they are not finite, or the network fails.
        """
        embeddings = self._run(self._embed, images)
        if not np.isfinite(embeddings).all():
            raise damaged_model(self.folder, "it gives embeddings that are not finite")
        return embeddings

    def _run(self, function, images):
        """A function of the network, for images of whole numbers from 0 to 255."""
        try:
            return function(np.stack(images).astype(np.float32) / 255)
        except RuntimeError as error:  # of torch; the errors of ONNX Runtime derive from it
            raise damaged_model(self.folder, error) from error


@lru_cache(maxsize=1)
def _load_once(model, backend, device, threads, fingerprint):
    """The classifier of a worker process; `ModelError` if it is not the one of the caller."""
    folder = built_in_model() if model == BUILT_IN else model
    classifier = GenreClassifier.load(folder, backend=backend, device=device)
    if classifier.fingerprint != fingerprint:
        raise ModelError(
            f"{model} is another model on this worker. Give all machines the same melgenre, and "
            "name the model by a folder that they share, by a URL or by hf:owner/name."
        )
    return classifier.on_one_core() if threads else classifier


def _caveats(config):
    """Sentences that a user should read with each prediction of a model."""
    caveats = []
    if str(config["training"].get("collection", "")).startswith("synthetic"):
        caveats.append(
            "This model was trained on made-up music: its predictions mean nothing for real music. "
            "Train it on real genres first."
        )
    if config["calibration"]["ood_threshold"] is None:
        tracks = config["calibration"].get("tracks", "an unknown number of")
        caveats.append(
            f"This model has no out-of-distribution threshold: it was calibrated on {tracks} "
            f"clips, and {FEWEST_CLIPS} are needed. It predicts a genre even for noise."
        )
    return caveats
