"""An exported model -> the genres of any recording.

The folder that `melgenre.training.export` wrote is all that is needed. Loading it here unpickles
nothing, so no code in the file is run; by ONNX Runtime it needs neither torch nor fastai.
"""

import importlib.util
import shutil
from itertools import islice
from pathlib import Path

import numpy as np

from ..data.audio import iter_windows
from ..data.mel_settings import MelSettings
from ..features.melspectrogram import melspectrogram_image
from ..files import atomic_folder, sweep
from .model_folder import (
    CONFIG,
    FEWEST_CLIPS,
    ONNX,
    PRIVATE,
    WEIGHTS,
    ModelError,
    check_replaceable,
    copy_others,
    damaged_model,
    fingerprint,
    read_checked,
    read_config,
)

HUB = "hf:"  # before the name of a repository on the Hugging Face hub
# Windows that the network gets at a time: on a CPU more take memory and no less time.
CPU_BATCH, GPU_BATCH = 2, 32
UNSURE = "unsure"
ONNX_NAMES_TO_FORMAT_4 = {"pictures": "images", "strangeness": "ood_score"}


class Prediction(dict):
    """Probability of each genre, the most probable first, and whether to believe them.

    Attributes
    ----------
    genre : str
        The most probable genre, or "unsure".
    unsure : bool
        The sound is unlike anything the model learned from: its probabilities mean nothing.
    ood_score : float
        How unlike; about 1 for what it learned from.
    caveats : tuple of str
        Sentences that belong beside the answer, from the model's training.
    """

    def __init__(self, genres, probabilities, ood_score, ood_threshold, caveats=()):
        order = np.argsort(-np.asarray(probabilities), kind="stable")
        super().__init__((genres[i], float(probabilities[i])) for i in order)
        self.caveats = tuple(caveats)
        self.ood_score = float(ood_score)
        self.is_ood = self.ood_score > ood_threshold
        self.genre = UNSURE if self.is_ood else next(iter(self))

    def __repr__(self):
        return "\n# ".join([super().__repr__(), *self.caveats])


class GenreClassifier:
    """A trained network that names the genre of recordings.

    Attributes
    ----------
    predict_proba : callable
        Images [shape=(batch, n_mels, columns), dtype=float32] between 0 and 1 -> probabilities
        [shape=(batch, n_genres)] and ood_score [shape=(batch,)].
    genres : list of str
    settings : MelSettings
        Of the images that the network knows.
    config : dict
        All that the exported folder says of itself: what it learned from, and its accuracy.
    folder : Path
    backend, device : str
        What runs the network ("onnx" or "torch"), and where.
    ood_threshold : float
        Sound of a greater ood_score is answered with "unsure"; infinite where the model was
        calibrated on too few clips to tell.
    caveats : list of str
        Of every answer.
    fingerprint : str
        Twelve characters that differ for any two models.

    Examples
    --------
    >>> classifier = GenreClassifier.load("models/resnet34")    # doctest: +SKIP
    >>> classifier.predict("song.mp3")                          # doctest: +SKIP
    {'jazz': 0.91, 'blues': 0.06, ...}
    >>> classifier.predict("noise.wav").genre                   # doctest: +SKIP
    'unsure'
    """

    def __init__(self, predict_proba, config, folder, backend, device="cpu"):
        self.predict_proba, self.config, self.folder = predict_proba, config, folder
        self.backend, self.device = backend, device
        self.genres = list(config["genres"])
        self.settings = MelSettings(**config["mel_settings"])
        ood_threshold = config["calibration"]["ood_threshold"]
        self.ood_threshold = np.inf if ood_threshold is None else ood_threshold
        self.caveats = _caveats(config)
        self.fingerprint = fingerprint(folder, config)

    @classmethod
    def load(cls, model, *, backend=None, device="cpu"):
        """Rebuild the network of an exported folder, on the disk or on the Hugging Face hub.

        Parameters
        ----------
        model : str or Path
            A folder with `config.json`, and `model.safetensors` or `model.onnx`; or
            `hf:owner/name`, a repository on the hub, of which the two files that are needed are
            downloaded once; `hf:owner/name@v1` is a revision of it: a branch, tag or commit.
        backend : str
            "onnx" (ONNX Runtime, which starts at once and needs no torch) or "torch"; None: ONNX
            Runtime on a CPU, where it is installed and the folder has a `model.onnx`.
        device : str
            Where the network runs, as torch names it: "cpu", "cuda", "cuda:1", …

        Returns
        -------
        GenreClassifier

        Raises
        ------
        ModelError
            If a file is missing or damaged, or was written by a newer melgenre, or if the device
            is not there.
        """
        by_onnx = backend == "onnx" or (
            backend is None and device == "cpu" and importlib.util.find_spec("onnxruntime")
        )
        folder = _find_folder(model, ONNX if by_onnx else WEIGHTS)
        if by_onnx and backend is None and not (folder / ONNX).exists():
            by_onnx, folder = False, _find_folder(model, WEIGHTS)
        config = read_config(folder)
        try:
            if by_onnx:
                predict_proba = _load_onnx(folder, config, device=device)
            else:
                predict_proba = _load_torch(folder, config, device)
        except ModelError:
            if read_config(folder) == config:
                raise
            return cls.load(model, backend=backend, device=device)  # it was replaced meanwhile
        return cls(predict_proba, config, folder, "onnx" if by_onnx else "torch", device)

    def on_one_core(self):
        """The same model for use by a thread on every core at once, where ONNX Runtime runs it.

        Several recordings, each on its own core, take less time than one after the other on all
        cores: no core waits for another within a layer.

        Returns
        -------
        GenreClassifier
        """
        if self.backend != "onnx" or self.device != "cpu":
            return self
        predict_proba = _load_onnx(self.folder, self.config, threads=1)
        return GenreClassifier(predict_proba, self.config, self.folder, self.backend)

    def save(self, folder):
        """Copy the model into another folder, without `learner.pkl`, which can hold code, and
        without `split.csv`, which names tracks.

        Parameters
        ----------
        folder : str or Path

        Returns
        -------
        Path
        """
        check_replaceable(folder)
        sweep(Path(folder).parent)
        with atomic_folder(folder) as part:
            copy_others(folder, part)
            ignore = shutil.ignore_patterns(*PRIVATE)
            shutil.copytree(self.folder, part, ignore=ignore, dirs_exist_ok=True)
        return Path(folder)

    def push_to_hub(self, name, *, private=True, token=None):
        """Upload the model to the Hugging Face hub; `GenreClassifier.load(name)` brings it back.

        Parameters
        ----------
        name : str
            The repository, `hf:owner/name`; made where it is missing.
        private : bool
            Of a repository that is made now.
        token : str
            As for `huggingface_hub`; None: what `hf auth login` has kept.

        Returns
        -------
        huggingface_hub.CommitInfo
        """
        from huggingface_hub import HfApi

        api, name = HfApi(token=token), name.removeprefix(HUB)
        api.create_repo(name, private=private, exist_ok=True)
        return api.upload_folder(
            repo_id=name, folder_path=self.folder, ignore_patterns=list(PRIVATE)
        )

    def predict(self, recording):
        """Genres of a whole recording, the most probable first.

        A recording longer than a clip is cut into windows of a clip's length, whose
        probabilities are averaged; those of strange windows count only where all are strange.

        Parameters
        ----------
        recording : str, Path, bytes, binary file, or tuple of samples and their rate
            See `melgenre.data.audio.iter_windows`.

        Returns
        -------
        Prediction
            Probability of each genre, summing to 1; `.genre` is the first, or "unsure".

        Raises
        ------
        melgenre.data.audio.AudioError
            If the recording cannot be used.
        """
        _, _, probabilities, ood_score = self.predict_windows(self.images(recording))
        return self.aggregate(probabilities, ood_score)

    def aggregate(self, probabilities, ood_score):
        """The `Prediction` of a recording from those of its windows [shape=(n, n_genres), (n,)]."""
        sure = ood_score <= self.ood_threshold
        # Applause at the end makes no song unsure; a song that is half applause is.
        counted = sure if sure.mean() > 0.5 else np.ones_like(sure)
        return Prediction(self.genres, probabilities[counted].mean(axis=0),
                      np.median(ood_score), self.ood_threshold, self.caveats)  # fmt: skip

    def timeline(self, recording):
        """Genres along a recording.

        Parameters
        ----------
        recording
            As for `predict`.

        Returns
        -------
        pd.DataFrame
            A row a window: `start` and `end` in seconds, `p_<genre>`, and `unsure`.
        """
        times, _, probabilities, ood_score = self.predict_windows(self.images(recording))
        return self.to_frame(times, probabilities, ood_score)

    def plot_timeline(self, recording):
        """The time line as an image: genres as bands under the mel-spectrogram.

        Parameters
        ----------
        recording
            As for `predict`.

        Returns
        -------
        matplotlib.axes.Axes
            Of the bands; a notebook shows the figure by itself.
        """
        import matplotlib.pyplot as plt

        from .timeline import plot_timeline

        times, images, probabilities, ood_score = self.predict_windows(self.images(recording))
        table = self.to_frame(times, probabilities, ood_score)
        return plot_timeline(table, images, plt.figure(figsize=(10, 4)))

    def to_frame(self, times, probabilities, ood_score):
        """What `predict_windows` says, as the table of `timeline`."""
        import pandas as pd  # ONNX Runtime alone answers without it

        table = pd.DataFrame(times, columns=["start", "end"])
        table[[f"p_{genre}" for genre in self.genres]] = probabilities
        return table.assign(is_ood=ood_score > self.ood_threshold)

    def images(self, recording):
        """Start, end and image [shape=(n_mels, columns), dtype=uint8] of each window."""
        settings = self.settings
        windows = iter_windows(recording, settings.duration, sample_rate=settings.sample_rate)
        for start, end, y in windows:
            yield start, end, melspectrogram_image(y, settings)

    def predict_images(self, images):
        """Probabilities [shape=(n, n_genres)] and ood_score [shape=(n,)] of some images."""
        try:
            judged = self.predict_proba(np.stack(images).astype(np.float32) / 255)
        except RuntimeError as error:  # of torch; ONNX Runtime's own derive from it
            raise damaged_model(self.folder, error) from error
        if not all(np.isfinite(part).all() for part in judged):
            raise damaged_model(self.folder, "it gives probabilities that are not finite")
        return judged

    def predict_windows(self, windows):
        """Judge the windows of `images`, some at a time.

        Parameters
        ----------
        windows : iterable of (float, float, np.ndarray)

        Returns
        -------
        times : list of (float, float)
        images : list of np.ndarray [shape=(n_mels, columns), dtype=uint8]
        probabilities : np.ndarray [shape=(n, n_genres)]
        ood_score : np.ndarray [shape=(n,)]
        """
        times, images, judged, windows = [], [], [], iter(windows)
        batch = CPU_BATCH if self.device == "cpu" else GPU_BATCH
        while some := list(islice(windows, batch)):
            times += [(start, end) for start, end, _ in some]
            images += [image for _, _, image in some]
            judged.append(self.predict_images(images[-len(some) :]))
        probabilities, ood_score = (np.concatenate(parts) for parts in zip(*judged, strict=True))
        return times, images, probabilities, ood_score


def _caveats(config):
    """Sentences that belong beside every answer of a model."""
    caveats = []
    if str(config["training"].get("collection", "")).startswith("synthetic"):
        caveats.append(
            "This model was trained on made-up music: its answer is worth nothing for real music. "
            "Train it on real genres first."
        )
    if config["calibration"]["ood_threshold"] is None:
        tracks = config["calibration"].get("tracks", "an unknown number of")
        caveats.append(
            f"This model cannot tell what it does not know: it was calibrated on {tracks} clips, "
            f"and {FEWEST_CLIPS} are needed. Even noise gets one of its genres."
        )
    return caveats


def _find_folder(model, network):
    """The folder of a model: on the disk, or downloaded from the hub with its file `network`."""
    if not str(model).startswith(HUB):  # so a folder that is missing is no stranger's repository
        return Path(model)
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelError(
            f"{model} is on the Hugging Face hub, and huggingface_hub, which fetches it, is not "
            "installed: pip install huggingface_hub"
        ) from None
    name, _, revision = str(model).removeprefix(HUB).partition("@")
    try:
        # Never the pickle: nothing from the network shall run code here.
        folder = snapshot_download(
            name, revision=revision or None, allow_patterns=[CONFIG, network]
        )
        return Path(folder)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{model} cannot be fetched from the Hugging Face hub ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0]}). Check the name and the connection."
        ) from error


def _load_torch(folder, config, device):
    """The network as torch runs it, rebuilt and filled with the folder's weights."""
    try:
        import safetensors
        import torch
        from safetensors.torch import load

        from ..networks import ArchitectureError, ImageClassifier, build_network
    except ImportError as error:
        raise ModelError(
            f"To run {folder.name} by torch, {error.name} is missing. Install what "
            "requirements.txt names, or use its model.onnx: pip install onnxruntime"
        ) from None

    weights = read_checked(folder, config, WEIGHTS)
    try:
        network = build_network(config["architecture"], len(config["genres"]), config["body"])
        network.load_state_dict(load(weights))
        network = ImageClassifier(network, **config["normalisation"]).eval()
    except (safetensors.SafetensorError, ArchitectureError, RuntimeError, KeyError,
            TypeError) as error:  # fmt: skip
        raise damaged_model(folder, error) from error
    try:
        network.to(device, memory_format=torch.channels_last)  # twice as fast on a CPU
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts it
        cause = str(error).splitlines()[0].rstrip(".")
        raise ModelError(
            f"{folder.name} cannot run on the device {device!r} ({cause}). Use device='cpu', or "
            "install the device's driver and a torch built for it."
        ) from error

    def predict_proba(images):
        with torch.inference_mode():
            judged = network(torch.from_numpy(images).to(device))
        return tuple(part.float().cpu().numpy() for part in judged)

    return predict_proba


def _load_onnx(folder, config, *, device="cpu", threads=0):
    """The network as ONNX Runtime runs it, in so many threads; 0: one on each core."""
    try:
        import onnxruntime
    except ImportError:
        raise ModelError(
            "ONNX Runtime is not installed: pip install onnxruntime, or load with backend='torch'."
        ) from None
    # As bytes: a file could name other files, which ONNX Runtime would read.
    content = read_checked(folder, config, ONNX)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = _onnx_providers(onnxruntime, device)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # it has exceptions of its own for every kind of damage
        raise damaged_model(folder, error) from error
    if device != "cpu" and session.get_providers()[0] == "CPUExecutionProvider":
        # Without a driver, ONNX Runtime goes on there by itself.
        raise _no_onnx_device(device)
    _check_onnx(folder, config, session)
    (port,) = session.get_inputs()
    return lambda images: session.run(None, {port.name: images})


def _check_onnx(folder, config, session):
    """Raise `ModelError` unless a network takes and gives what its config describes."""
    settings, n_genres = MelSettings(**config["mel_settings"]), len(config["genres"])
    expected = {
        "images": [settings.n_mels, settings.columns], "probabilities": [n_genres],
        "ood_score": [],
    }  # fmt: skip
    ports = session.get_inputs() + session.get_outputs()
    found = {ONNX_NAMES_TO_FORMAT_4.get(port.name, port.name): port.shape[1:] for port in ports}
    if found != expected:
        raise damaged_model(folder, f"model.onnx has {found}, and config.json describes {expected}")


def _onnx_providers(onnxruntime, device):
    """What ONNX Runtime needs to run on a device, as torch names it: `cpu`, `cuda`, `cuda:1`."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    if kind != "cuda" or "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise _no_onnx_device(device)
    # The same arithmetic as on a CPU: without `use_tf32`, products have 10 bits.
    options = {"device_id": int(number or 0), "use_tf32": 0}
    return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


def _no_onnx_device(device):
    return ModelError(
        f"ONNX Runtime cannot run on {device!r} here. For CUDA, install onnxruntime-gpu in place "
        "of onnxruntime, and the GPU's driver; or load with backend='torch', or device='cpu'."
    )
