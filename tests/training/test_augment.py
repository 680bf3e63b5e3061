"""Augmentation changes images a little, in training alone, and the same for the same seed."""

import numpy as np
import pytest
import torch
from fastai.vision.all import TensorImage
from hypothesis import given, settings, strategies as st

from melgenre.networks import IMAGENET_MEAN as MEAN, IMAGENET_STD as STD
from melgenre.training.augment import (
    AUGMENTATIONS,
    BandShift,
    FilterAugment,
    FreqMixStyle,
    Masks,
    TimeCrop,
    TimeRollStretch,
)
from melgenre.training.dataloaders import image_dataloaders

ALL = pytest.mark.parametrize("name", AUGMENTATIONS)


def batch(n=4, height=16, width=40, seed=0):
    """Grey images in three channels; the upper rows are silent."""
    grey = torch.rand(n, 1, height, width, generator=torch.Generator().manual_seed(seed))
    grey[:, :, :3] = 0
    return TensorImage(grey.expand(-1, 3, -1, -1))


@ALL
@settings(max_examples=20)
@given(n=st.integers(2, 5), height=st.integers(8, 40), width=st.integers(8, 60))
def test_a_batch_keeps_its_shape_and_its_channels_stay_the_same(name, n, height, width):
    x = batch(n, height, width)
    changed = AUGMENTATIONS[name]().encodes(x)
    assert isinstance(changed, TensorImage)
    assert changed.shape[:-1] == x.shape[:-1]
    assert name == "crop" or changed.shape == x.shape
    assert changed.isfinite().all()
    assert torch.equal(changed[:, 0], changed[:, 2])


@ALL
def test_the_same_seed_gives_the_same_batch_and_another_one_differs(name):
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        augmentation = AUGMENTATIONS[name]()
        augmentation.probability = 1.0
        results.append(augmentation.encodes(batch()))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@ALL
def test_only_training_batches_are_changed(name, images):
    augmentation = AUGMENTATIONS[name]()
    augmentation.probability = 1.0
    dls = image_dataloaders(images)
    plain = dls.valid.one_batch()[0]
    for dl in dls.loaders:
        dl.after_batch.add(augmentation)
    assert torch.equal(dls.valid.one_batch()[0], plain)
    torch.manual_seed(0)
    x = torch.Tensor(dls.train.one_batch()[0])
    # The channels are still the same grey image, normalised.
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (MEAN, STD))
    grey = x * std + mean
    assert torch.allclose(grey[:, 0], grey[:, 1], atol=1e-4)


def test_a_roll_without_stretch_starts_elsewhere_in_the_same_loop():
    x = batch(1)
    rolled = TimeRollStretch(stretch=0).encodes(x)
    spectrum, same = (np.abs(np.fft.rfft(one[0, 0].numpy()))[:, :3] for one in (x, rolled))
    assert same == pytest.approx(spectrum, rel=0.2, abs=0.5)  # but for the interpolation
    assert rolled.mean() == pytest.approx(float(x.mean()), abs=0.02)


def test_a_crop_is_a_part_of_the_clip():
    x = torch.Tensor(batch()[:, :1])
    cropped = TimeCrop(share=0.25).change(x)
    assert cropped.shape == (4, 1, 16, 10)
    for image, part in zip(x[:, 0], cropped[:, 0], strict=True):
        windows = image.unfold(1, 10, 1).transpose(0, 1)  # one per start
        assert any(torch.allclose(window, part) for window in windows)


def test_a_shift_moves_whole_rows():
    x = torch.zeros(1, 1, 16, 10)
    x[:, :, 8] = 1
    shift = BandShift(bands=3)
    tops = {int(shift.change(x)[0, 0, :, 0].argmax()) for _ in range(50)}
    assert tops <= set(range(5, 12))
    assert len(tops) > 3


def test_a_filter_leaves_silence_silent_and_changes_a_row_as_a_whole():
    x = batch()
    filtered = FilterAugment(gain=0.1).change(torch.Tensor(x[:, :1]))
    assert not filtered[:, :, :3].any()
    inside = (x[:, :1] > 0.15) & (x[:, :1] < 0.85)
    change = (filtered - x[:, :1]).masked_fill(~inside, float("nan"))
    for row in change.reshape(-1, 40):
        known = row[~row.isnan()]
        assert known.numel() == 0 or float(known.max() - known.min()) < 1e-5
    assert float(change.nan_to_num().abs().max()) <= 0.1 + 1e-6


def test_masks_replace_spans_by_the_mean():
    x = torch.Tensor(batch()[:, :1])
    masked = Masks(share=0.3, masks=1).change(x)
    changed = masked != x
    assert 0 < changed.float().mean() < 0.6
    for image, where, original in zip(masked, changed, x, strict=True):
        assert image[where] == pytest.approx(float(original.mean()))


def test_a_style_is_the_mean_and_contrast_of_a_band():
    quiet, loud = torch.rand(1, 1, 8, 50) * 0.1, 0.5 + torch.rand(1, 1, 8, 50) * 0.4
    x = torch.cat([quiet, loud])
    torch.manual_seed(3)
    mixed = FreqMixStyle(alpha=0.4, probability=1).change(x)
    low, high = quiet.mean(-1).min(), loud.mean(-1).max()
    assert ((mixed.mean(-1) >= low - 1e-4) & (mixed.mean(-1) <= high + 1e-4)).all()
    # Each clip keeps its own course in time.
    for own, other in zip(x, mixed, strict=True):
        assert np.corrcoef(own[0, 0], other[0, 0])[0, 1] > 0.999
