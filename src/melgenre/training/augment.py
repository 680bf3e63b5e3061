"""Augmentation of mel-spectrogram images: small changes under which a genre stays the same.

Each class is a fastai transform of a whole batch on its device. It changes the batches of training
only, between their conversion to numbers from 0 (silence) to 1 and the normalisation of ImageNet.
Random numbers are drawn on the CPU, so that a seed gives the same batches on every device.
"""

import torch
from fastai.vision.all import TensorImage, Transform
from torch.nn.functional import interpolate


class Augmentation(Transform):
    """A random change of each image of a batch; a subclass defines `change`."""

    order = 20  # after fastai's IntToFloatTensor, before its Normalize
    split_idx = 0  # the training set

    def encodes(self, x: TensorImage) -> TensorImage:
        """Change a batch [shape=(batch, 3, n_mels, columns)] whose channels are the same."""
        grey = torch.Tensor(x[:, :1])  # a plain tensor: fastai's subclass is slower
        return TensorImage(self.change(grey).expand(-1, x.shape[1], -1, -1))

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Change a batch of grey images [shape=(batch, 1, n_mels, columns)]."""
        raise NotImplementedError


class TimeRollStretch(Augmentation):
    """Start a clip anywhere, as if it were a loop, and play it a little faster or slower.

    Both are in Salamon and Bello, "Deep convolutional neural networks and data augmentation for
    environmental sound classification" (2017), there on samples.

    Parameters
    ----------
    stretch
        Largest change of the speed: 0.1 is 10 %. The pitch stays.
    """

    def __init__(self, stretch: float = 0.1):
        self.stretch = stretch

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """As `Augmentation.change`."""
        n, width = len(x), x.shape[-1]
        speed = 1 + self.stretch * _between(-1, 1, n, 1)
        at = (width * torch.rand(n, 1) + torch.arange(width) * speed) % width
        return _resample(x, at.to(x.device), wrap=True)


class TimeCrop(Augmentation):
    """Cut a random part out of a clip: each step of the training takes so much less time.

    Parameters
    ----------
    share
        Of the clip that stays.
    """

    def __init__(self, share: float = 0.25):
        self.share = share

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Of columns, `share` stays: [shape=(batch, 1, n_mels, share * columns)]."""
        width = x.shape[-1]
        kept = max(1, round(self.share * width))
        start = torch.randint(width - kept + 1, (len(x), 1, 1, 1))
        at = (start + torch.arange(kept)).expand(*x.shape[:3], kept)
        return x.gather(-1, at.to(x.device))


class BandShift(Augmentation):
    """Move the image up or down by a few mel bands: nearly a transposition.

    Parameters
    ----------
    bands
        Largest shift; two of 128 bands are about two semitones.
    """

    def __init__(self, bands: float = 2):
        self.bands = bands

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """As `Augmentation.change`."""
        height = x.shape[-2]
        at = torch.arange(height) + self.bands * _between(-1, 1, len(x), 1)
        at = at.clamp(0, height - 1).to(x.device)
        return _resample(x.transpose(2, 3), at).transpose(2, 3)


class FilterAugment(Augmentation):
    """Another equaliser: random gains at some frequencies, and straight lines between them.

    The linear type of Nam, Kim and Park, "FilterAugment: an acoustic environmental data
    augmentation method" (2022), with equal distances between the frequencies. Silence stays silent.

    Parameters
    ----------
    gain
        Largest gain, as a share of the image's range: 0.1 is 8 of 80 dB.
    points
        Least and largest number of frequencies.
    """

    def __init__(self, gain: float = 0.1, points: tuple[int, int] = (2, 6)):
        self.gain, self.points = gain, points

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """As `Augmentation.change`."""
        count = int(torch.randint(self.points[0], self.points[1] + 1, ()))
        gains = _between(-self.gain, self.gain, len(x), 1, count)
        gains = interpolate(gains, size=x.shape[-2], mode="linear", align_corners=True)
        return (x + gains[..., None].to(x.device) * (x > 0)).clamp(0, 1)


class Masks(Augmentation):
    """Replace bands and stretches of time by the image's mean.

    The masks of Park et al., "SpecAugment: a simple data augmentation method for automatic speech
    recognition" (2019).

    Parameters
    ----------
    share
        Largest part of the bands, and of the columns, that one mask takes.
    masks
        Number of masks along each axis.
    """

    def __init__(self, share: float = 0.15, masks: int = 2):
        self.share, self.masks = share, masks

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """As `Augmentation.change`."""
        masked = torch.zeros(x.shape, dtype=torch.bool, device=x.device)
        for _ in range(self.masks):
            masked |= self._span(len(x), x.shape[2])[:, None, :, None].to(x.device)
            masked |= self._span(len(x), x.shape[3])[:, None, None, :].to(x.device)
        return torch.where(masked, x.mean(dim=(1, 2, 3), keepdim=True), x)

    def _span(self, n, size):
        """A random span of `size` points for each of n images [shape=(n, size)]."""
        length = self.share * size * torch.rand(n, 1)
        start = (size - length) * torch.rand(n, 1)
        return (torch.arange(size) >= start) & (torch.arange(size) < start + length)


class FreqMixStyle(Augmentation):
    """Give a clip a mixture of its own and another clip's level and contrast in each band.

    Schmid et al., "Knowledge distillation from transformers for low-complexity acoustic scene
    classification" (DCASE 2022), after MixStyle of Zhou et al. (2021). What a recording device or a
    studio does to a clip is mostly in these statistics.

    Parameters
    ----------
    alpha
        Of the beta distribution of the share of the other clip.
    probability
        That a batch is changed.
    """

    def __init__(self, alpha: float = 0.4, probability: float = 0.7):
        self.alpha, self.probability = alpha, probability

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """As `Augmentation.change`."""
        if torch.rand(()) > self.probability:
            return x
        own = torch.distributions.Beta(self.alpha, self.alpha).sample((len(x), 1, 1, 1))
        own, others = own.to(x.device), torch.randperm(len(x)).to(x.device)
        mean, std = x.mean(dim=-1, keepdim=True), x.std(dim=-1, keepdim=True) + 1e-3
        new_mean, new_std = (torch.lerp(of[others], of, own) for of in (mean, std))
        return (x - mean) / std * new_std + new_mean


AUGMENTATIONS = {
    "crop": TimeCrop,
    "time": TimeRollStretch,
    "bands": BandShift,
    "filter": FilterAugment,
    "masks": Masks,
    "style": FreqMixStyle,
}
"""Each class by its name in a recipe."""


def _between(low, high, *shape):
    """Random numbers [shape=shape], uniform from low to high."""
    return low + (high - low) * torch.rand(shape)


def _resample(x, at, wrap=False):
    """Values of images [shape=(n, 1, rows, columns)] at columns `at` [shape=(n, columns)]."""
    below, above = at.floor().long(), at.floor().long() + 1
    above = above % x.shape[-1] if wrap else above.clamp(max=x.shape[-1] - 1)
    size = (*x.shape[:3], at.shape[-1])
    low, high = (x.gather(-1, one[:, None, None].expand(size)) for one in (below, above))
    return torch.lerp(low, high, (at - below)[:, None, None])
