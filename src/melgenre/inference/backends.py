"""Run the network of a model folder by torch or by ONNX Runtime.

Each `load_…` returns a `Network`: functions of images [shape=(batch, n_mels, columns),
dtype=float32] between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from ..data.mel_settings import MelSettings
from ..errors import extra_packages
from .model_folder import ONNX, WEIGHTS, ModelError, damaged_model, read_checked


class Network(NamedTuple):
    """A loaded network.

    Attributes
    ----------
    predict_proba
        Images -> probabilities [shape=(batch, n_genres)] and out-of-distribution scores
        [shape=(batch,)].
    embed
        Images -> embeddings [shape=(batch, d)]: the input of the last layer. Raises `ModelError` if
        the model has none.
    """

    predict_proba: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    embed: Callable[[np.ndarray], np.ndarray]


def load_torch(folder: Path, config: dict, device: str) -> Network:
    """Rebuild the network in torch and fill it with the folder's weights.

    Parameters
    ----------
    config
        Of `read_config`.
    device
        As torch names it.

    Raises
    ------
    ModelError
        If the folder is damaged, or the device is not available.
    MissingPackageError
        If torch is not installed.
    """
    with extra_packages("train", f"{folder.name} by torch"):
        import safetensors
        import torch
        from safetensors.torch import load

        from ..networks import ArchitectureError, ImageClassifier, build_network

    weights = read_checked(folder, config, WEIGHTS)
    damage = safetensors.SafetensorError, ArchitectureError, RuntimeError, KeyError, TypeError
    try:
        kind = {"multi_label": config["multi_label"]}
        shape = config["architecture"], len(config["genres"]), config["body"]
        network = build_network(*shape, **kind)
        network.load_state_dict(load(weights))
        network = ImageClassifier(network, **config["normalisation"], **kind).eval()
    except damage as error:
        raise damaged_model(folder, error) from error
    try:
        network.to(device, memory_format=torch.channels_last)  # twice as fast on a CPU
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        cause = str(error).splitlines()[0].rstrip(".")
        raise ModelError(
            f"{folder.name} cannot run on the device {device!r} ({cause}). Use device='cpu', or "
            "install the device's driver and a torch built for it."
        ) from error

    def run(images, outputs):
        with torch.inference_mode():
            computed = network(torch.from_numpy(images).to(device))[outputs]
        return tuple(output.float().cpu().numpy() for output in computed)

    return Network(lambda images: run(images, slice(2)), lambda images: run(images, slice(2, 3))[0])


def load_onnx(folder: Path, config: dict, *, device: str = "cpu", threads: int = 0) -> Network:
    """Load the network into ONNX Runtime.

    Parameters
    ----------
    config
        Of `read_config`.
    device
        As torch names it: `cpu`, `cuda`, `cuda:1`.
    threads
        Of a CPU; 0: one per core.

    Raises
    ------
    ModelError
        If ONNX Runtime is not installed, the folder is damaged, or the device is not available.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ModelError(
            "ONNX Runtime is not installed: pip install onnxruntime, or load with backend='torch'."
        ) from None
    # As bytes: a file on the disk could refer to other files, which ONNX Runtime would read.
    content = read_checked(folder, config, ONNX)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = onnx_providers(onnxruntime, device)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # ONNX Runtime raises many types, which share no base but this
        raise damaged_model(folder, error) from error
    if device != "cpu" and session.get_providers()[0] == "CPUExecutionProvider":
        # Without a driver, ONNX Runtime falls back to the CPU by itself.
        raise _no_onnx_device(device)
    _check_shapes(folder, config, session)
    (port,) = session.get_inputs()
    outputs = [output.name for output in session.get_outputs()]

    def embed(images):
        if len(outputs) < 3:
            raise ModelError(
                f"model.onnx of {folder.name} gives no embeddings: it was exported by an earlier "
                "version. Export the learner again, or load the model with backend='torch'."
            )
        return session.run(outputs[2:], {port.name: images})[0]

    return Network(lambda images: session.run(outputs[:2], {port.name: images}), embed)


def _check_shapes(folder, config, session):
    """Raise `ModelError` unless the inputs and outputs have the shapes that the config implies.

    Their names do not matter: formats 1 to 4 have others than format 5. From format 6 on there is
    a third output, the embedding, which has any length.
    """
    settings = MelSettings(**config["mel_settings"])
    expected = [[settings.n_mels, settings.columns], [len(config["genres"])], []]
    found = [port.shape[1:] for port in session.get_inputs() + session.get_outputs()]
    embedding = found[3:]
    if found[:3] != expected or [len(shape) for shape in embedding] not in ([], [1]):
        raise damaged_model(
            folder,
            f"model.onnx has images, probabilities and scores of the shapes {found}, and "
            f"config.json describes {expected}",
        )


def onnx_providers(onnxruntime: ModuleType, device: str) -> list:
    """The execution providers of ONNX Runtime for a device, the preferred one first."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    if kind != "cuda" or "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise _no_onnx_device(device)
    # TF32 is off, because its products have 10 bits: results would differ from those of a CPU.
    options = {"device_id": int(number or 0), "use_tf32": 0}
    return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


def _no_onnx_device(device):
    return ModelError(
        f"ONNX Runtime cannot run on {device!r} here. For CUDA, install onnxruntime-gpu in place "
        "of onnxruntime, and the GPU's driver; or load with backend='torch', or device='cpu'."
    )
