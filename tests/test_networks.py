"""The texture backbone of any convolutional network, and the out-of-distribution score."""

import copy
import hashlib
import pickle
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from conftest import run_of
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate

from melgenre.data.splits import held_out
from melgenre.data.table import probabilities
from melgenre.inference.classifier import GenreClassifier
from melgenre.networks import (
    BUILT_IN,
    ArchitectureError,
    TextureBackbone,
    build_network,
    built_in_weights,
    head_with_ood_score,
)
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.export import export_learner
from melgenre.training.exported import load_exported
from melgenre.training.learner import genre_learner, predict_tracks


def layers_of_resnet(network):
    """A ResNet's layers in order, each block by itself, cut where its maps become smaller."""
    fine = [network.conv1, network.bn1, network.relu, network.maxpool, *network.layer1]
    return nn.Sequential(*fine), nn.Sequential(*network.layer2)


def textures_by_definition(fine, coarse, image):
    """Mean and standard deviation of feature maps in 16 zones, in NumPy."""
    enlarged = interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
    numbers = []
    for maps in (fine(image), coarse(fine(enlarged))):
        zones = np.split(maps[0].double().numpy(), 16, axis=1)
        for statistic in (np.mean, np.std):
            numbers.append(np.stack([statistic(zone, axis=(1, 2)) for zone in zones], axis=1))
    return np.concatenate([one.ravel() for one in numbers])


@pytest.mark.parametrize("name", ["resnet34", pytest.param("resnet50", marks=pytest.mark.slow)])
@pytest.mark.parametrize("pretrained", [False, True], ids=["random", "imagenet"])
@torch.no_grad()
def test_a_resnets_textures_are_the_statistics_of_its_first_two_stages(name, pretrained):
    torch.manual_seed(0)
    weights = torchvision.models.get_model_weights(name).DEFAULT if pretrained else None
    try:
        network = torchvision.models.get_model(name, weights=weights).eval()
    except OSError:
        pytest.skip("no ImageNet weights here, and no network to download them")
    image = torch.rand(1, 3, 128, 387)
    expected = textures_by_definition(*layers_of_resnet(network), image)
    np.testing.assert_allclose(TextureBackbone(network)(image)[0], expected, rtol=1e-3, atol=2e-3)


class EarlierBackbone(nn.Module):
    """The module whose weights the model folders of formats 1 to 4 hold."""

    def __init__(self, network):
        super().__init__()
        self.fine, self.coarse = layers_of_resnet(network)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_weights_of_earlier_model_folders_fit(name):
    torch.manual_seed(0)
    earlier = EarlierBackbone(torchvision.models.get_model(name))
    weights = {f"0.{key}": value for key, value in earlier.state_dict().items()}
    network = build_network(name, 10, "texture")
    network.load_state_dict({**network.state_dict(), **weights})  # strict: no key is unknown
    assert [key for key in network.state_dict() if key.startswith("0.")] == list(weights)
    for key, value in weights.items():
        torch.testing.assert_close(network.state_dict()[key], value)


QUICK = ["mobilenet_v3_small", "regnet_y_400mf", "resnet10t", "mobilenetv3_small_100"]
SLOW = [
    "efficientnet_b0", "convnext_tiny", "densenet121", "vgg16_bn", "googlenet", "resnet18d",
    "convnext_nano", "tf_efficientnet_b0", "regnety_004", "resnetv2_50",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "name", QUICK + [pytest.param(name, marks=pytest.mark.slow) for name in SLOW]
)
@torch.no_grad()
def test_convolutional_networks_of_both_libraries_can_be_texture_backbones(name):
    torch.manual_seed(0)
    network = build_network(name, 10, "texture").eval()
    images = torch.rand(2, 3, 128, 131)
    textures = network[0](images)
    assert textures.isfinite().all() and not torch.equal(*textures)
    assert network(images).shape == (2, 10)
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        torch.testing.assert_close(copied(images), network(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b_16", "vit_tiny_patch16_224", "swin_t"])
def test_a_network_without_maps_of_these_sizes_gets_a_sentence(name):
    with pytest.raises(ArchitectureError, match=f"{name} cannot be cut for textures.*resnet34"):
        build_network(name, 10, "texture")


class Crossed(nn.Module):
    """A network that does not run its layers in the order of their definition."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.quarter = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.eighth = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, x):
        return self.eighth(self.quarter(self.first(x)))


def test_a_network_that_is_no_sequence_of_layers_is_not_cut():
    with pytest.raises(ArchitectureError, match="one after another"):
        TextureBackbone(Crossed())


@pytest.mark.slow
def test_a_network_of_timm_is_trained_exported_and_loaded_with_textures(images, tmp_path):
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:3])]
    learn = genre_learner(image_dataloaders(few), "resnet10t", "texture", pretrained=False)
    predictions = predict_tracks(learn, held_out(few))
    folder = export_learner(run_of(learn, predictions), tmp_path / "timm")
    pickled = predict_tracks(load_exported(folder)[0], predictions[list(few)])
    pixels = [np.asarray(Image.open(file)) for file in predictions["image"]]
    for backend in ("torch", "onnx"):
        found, _ = GenreClassifier.load(folder, backend=backend).predict_images(pixels)
        np.testing.assert_allclose(found, probabilities(pickled), atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_the_ood_score_is_one_for_features_like_those_of_the_training():
    torch.manual_seed(0)
    head = build_network("resnet18", 4, "texture")[1].eval()
    norm = next(layer for layer in head if isinstance(layer, nn.BatchNorm1d))
    norm.running_mean.uniform_(-5, 5)
    norm.running_var.uniform_(0.1, 9)
    standardised = torch.randn(50, norm.num_features)
    features = standardised * norm.running_var.sqrt() + norm.running_mean
    logits, ood_score = head_with_ood_score(head, features)
    torch.testing.assert_close(logits, head(features))
    torch.testing.assert_close(ood_score, torch.ones(50), atol=0.05, rtol=0)
    _, far = head_with_ood_score(
        head, 3 * standardised * norm.running_var.sqrt() + norm.running_mean
    )
    torch.testing.assert_close(far, 3 * ood_score, atol=1e-3, rtol=1e-3)


@pytest.fixture(scope="module")
def offline():
    """No network access, and no weights that were downloaded earlier."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as empty:
        for name in ("TORCH_HOME", "HF_HOME"):
            patch.setenv(name, empty)
        for name in ("http_proxy", "https_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        yield


@torch.no_grad()
def test_the_built_in_backbone_gives_the_feature_maps_of_timms_network(offline):
    network = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2))
    backbone = build_network(BUILT_IN, 10, "texture", pretrained=True)[0].eval()
    names = [name for name in network.state_dict() if not name.startswith("blocks.3")]
    weights = dict(zip(names, backbone.state_dict().values(), strict=False))
    network.load_state_dict(weights, strict=False)
    image = torch.rand(1, 3, 128, 387)
    fine, coarse = network.eval()(image)
    torch.testing.assert_close(backbone.fine(image), fine)
    torch.testing.assert_close(backbone.coarse(backbone.fine(image)), coarse)


def test_the_built_in_backbone_has_the_checksum_in_the_notice():
    content = built_in_weights().read_bytes()
    notice = Path(__file__).parent.parent / "NOTICE"
    assert hashlib.sha256(content).hexdigest() in notice.read_text()
    backbone = build_network(BUILT_IN, 10, "texture")[0]
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 55_504


@pytest.mark.slow
def test_the_built_in_backbone_needs_no_download(offline, images):
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:3])]
    learn = genre_learner(image_dataloaders(few), BUILT_IN, "discriminant")
    assert re.fullmatch(
        r"EfficientNet-Lite0's first blocks, in melgenre \(Apache-2.0, sha256 [0-9a-f]{8}\)",
        learn.training_run.weights,
    )


def test_the_built_in_backbone_is_for_textures_alone(images):
    with pytest.raises(ArchitectureError, match="Only the first blocks.*tf_efficientnet_lite0"):
        genre_learner(image_dataloaders(images), BUILT_IN, "frozen-head")
