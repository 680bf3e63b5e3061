"""Train, export, load and predict with every recipe on a second device.

Without a GPU the second device is torch's `meta`, whose tensors have shapes and no values. A guard
raises an error if an operation mixes devices, as CUDA does. With a GPU the same tests run on CUDA.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.torch_core import defaults
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from melgenre.confusion.attribution import attribution_maps, embed_images, nearest
from melgenre.data.splits import held_out
from melgenre.evaluation.metrics import evaluate
from melgenre.experiments import run_svm
from melgenre.inference.backends import onnx_providers
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.model_folder import ModelError
from melgenre.networks import TextureBackbone
from melgenre.training import export, recipes
from melgenre.training.augment import AUGMENTATIONS
from melgenre.training.cached_features import extract_features
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.export import export_learner
from melgenre.training.exported import load_exported
from melgenre.training.fit import fit
from melgenre.training.learner import genre_learner, is_frozen, predict_tracks
from melgenre.training.transfer import transfer_learner

COPIES = ("to", "_to_copy", "copy_")


class Guard(TorchDispatchMode):
    """Raises an error if an operation mixes devices. A copy from `meta` to the CPU gives zeros."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        values = tree_flatten((arguments, options or {}))[0]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        name = function.overloadpacket.__name__
        # A scalar of the CPU may be combined with any device, as with CUDA.
        kinds = {t.device.type for t in tensors if t.ndim or t.device.type != "cpu"}
        if len(kinds) > 1 and name not in COPIES:
            raise RuntimeError(f"{name} mixes tensors of {' and '.join(sorted(kinds))}")
        if "meta" in kinds and name == "_local_scalar_dense":  # item()
            return 0
        if "meta" in kinds and name == "copy_" and tensors[0].device.type == "cpu":
            return tensors[0].zero_()
        if "meta" in kinds and name in COPIES and torch.device("cpu") in values:
            dtype = next((v for v in values if isinstance(v, torch.dtype)), tensors[0].dtype)
            return torch.zeros(tensors[0].shape, dtype=dtype)
        return function(*arguments, **(options or {}))


@pytest.fixture(
    params=["meta", pytest.param("cuda", marks=pytest.mark.gpu)],
)
def device(request, monkeypatch, tmp_path):
    """A second device. DataLoaders use it by default."""
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    monkeypatch.setattr(defaults, "use_cuda", None)  # conftest.py sets the CPU for other tests
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("needs CUDA")
        yield torch.device("cuda", torch.cuda.current_device())
    else:
        device = torch.device("meta")
        for module in ("fastai.data.core", "melgenre.training.dataloaders"):
            monkeypatch.setattr(f"{module}.default_device", lambda: device)
        # The ONNX exporter traces on the CPU, with a dispatch mode of its own.
        monkeypatch.setattr(export, "_export_onnx", lambda *_: None)
        with Guard():
            yield device


@pytest.fixture
def few(images):
    return images[images["genre"].isin(sorted(images["genre"].unique())[:3])].reset_index(drop=True)


def test_the_guard_raises_an_error_if_devices_mix():
    on_cpu, elsewhere = torch.ones(3), torch.ones(3, device="meta")
    with Guard(), pytest.raises(RuntimeError, match="mixes tensors of cpu and meta"):
        elsewhere + on_cpu
    with Guard():
        assert (elsewhere * 2).cpu().tolist() == [0, 0, 0]
        assert elsewhere.sum().item() == 0


@pytest.mark.bf16
@pytest.mark.slow
@pytest.mark.parametrize("pretrained", [True, False], ids=["frozen", "from scratch"])
@pytest.mark.parametrize("recipe", ["texture", "frozen-head", "fine-tune", "smoke-test"])
@pytest.mark.filterwarnings("ignore:.*from a non-meta parameter in the checkpoint")
def test_train_export_load_and_predict(recipe, pretrained, device, few, tmp_path, monkeypatch):
    short = replace(
        recipes.RECIPES[recipe],
        freeze_epochs=1,
        epochs=min(2, recipes.RECIPES[recipe].epochs),
        augmentation=tuple(AUGMENTATIONS),
    )
    monkeypatch.setitem(recipes.RECIPES, recipe, short)
    learn = genre_learner(image_dataloaders(few), "resnet18", recipe, pretrained=False)
    if pretrained:  # as if its weights were ImageNet's
        learn.training_run, learn.train_bn = (
            replace(learn.training_run, weights="as if from ImageNet"),
            False,
        )
        learn.freeze()
    assert next(learn.model.parameters()).device == device
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    predictions = predict_tracks(learn, held_out(few))
    assert is_frozen(learn) == (pretrained and recipe in ("texture", "frozen-head"))
    assert learn.training_run.device.startswith(device.type)
    result = {**evaluate(predictions, "artist-split"), "accuracy": 0.5}
    run = replace(learn.training_run, learner=learn, result=result, predictions=predictions)
    folder = export_learner(run, tmp_path / "model")
    assert {p.device for p in learn.model.parameters()} == {device}

    loaded, _ = load_exported(folder, device=device)
    again = predict_tracks(loaded, predictions[list(few)])
    if device.type == "cuda":
        calibrated = GenreClassifier.load(folder, device="cpu")
        images = [np.asarray(Image.open(file)) for file in predictions["image"]]
        probabilities, _ = calibrated.predict_images(images)
        np.testing.assert_allclose(again.filter(like="p_"), probabilities, atol=5e-3)
    maps = attribution_maps(learn, few["image"][0], list(learn.dls.vocab)[:2])
    assert maps.shape == (2, 128, 387)
    embedded = embed_images(learn, few)
    assert embedded.device.type == "cpu"
    assert len(nearest(embedded[0], embedded, n=3)) == 3

    start = transfer_learner(image_dataloaders(few), folder)
    with start.no_bar(), start.no_logging():
        fit(start)
    assert {p.device for p in start.model.parameters()} == {device}
    classifier = GenreClassifier.load(folder, backend="torch", device=str(device))
    assert set(classifier.predict(few["path"][0])) == set(learn.dls.vocab)


@pytest.mark.slow
def test_an_svm_is_trained_on_features_of_the_device(device, few):
    assert run_svm(few, "random", "resnet18").result["tracks"] == 3


@pytest.mark.slow
def test_features_are_cached_per_device_and_precision(few, tmp_path, monkeypatch):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    learn = genre_learner(image_dataloaders(few), "resnet18", "texture", pretrained=False)
    assert isinstance(learn.model[0], TextureBackbone)
    exact = extract_features(learn, few)
    rounded = extract_features(learn, few, dtype=torch.bfloat16)
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(exact, rounded, rtol=0.2, atol=0.05)
    folders = {file.parent.name.partition("-cpu-")[2] for file in tmp_path.rglob("rows.bin")}
    assert folders == {"float32", "bfloat16"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("backend", [None, "torch", "onnx"])
def test_a_missing_gpu_raises_an_error(backend, exported):
    with pytest.raises(ModelError, match="cannot run on .*'cuda'.*device='cpu'") as error:
        GenreClassifier.load(exported, backend=backend, device="cuda")
    assert "damaged" not in str(error.value)


def test_onnx_runtime_uses_the_given_gpu():
    class WithCuda:
        get_available_providers = staticmethod(
            lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
        )

    (name, options), fallback = onnx_providers(WithCuda, "cuda:1")
    assert (name, options["device_id"]) == ("CUDAExecutionProvider", 1)
    assert fallback == "CPUExecutionProvider"
    assert onnx_providers(WithCuda, "cpu") == ["CPUExecutionProvider"]
    with pytest.raises(ModelError, match="cannot run on 'mps'"):
        onnx_providers(WithCuda, "mps")
