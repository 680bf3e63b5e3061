"""A fastai DataLoader that reads images from files and from shards."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import Learner, TfmdDL

from ..data.image_files import GROUP_ROWS, GROUPS_IN_MEMORY, read_image, shard_row


class ImageDataLoader(TfmdDL):
    """fastai's DataLoader of a table of tracks, with images at any address.

    Images in shards are shuffled block by block: the row groups first, then the images of as many
    row groups as are kept in memory. Each row group is read once per epoch.
    """

    def create_item(self, s: int | None) -> tuple:
        """The image and the genre of a row of the table."""
        items = self.dataset.items
        if not isinstance(items, pd.DataFrame):
            return super().create_item(s)
        row = items.iloc[s or 0].to_dict()
        row["image"] = read_image(row["image"])
        return tuple(part._after_item(row) for part in self.dataset.tls)

    def shuffle_fn(self, idxs: list[int]) -> list[int]:
        """The rows in random order."""
        groups = {}
        for i, image in zip(idxs, self.dataset.items["image"].iloc[idxs], strict=True):
            shard = shard_row(image)
            if shard is None:
                return super().shuffle_fn(idxs)
            groups.setdefault((shard[0], shard[1] // GROUP_ROWS), []).append(i)
        groups = self.rng.sample(list(groups.values()), len(groups))
        blocks = (
            list(itertools.chain(*groups[start : start + GROUPS_IN_MEMORY]))
            for start in range(0, len(groups), GROUPS_IN_MEMORY)
        )
        return [i for block in blocks for i in self.rng.sample(block, len(block))]


def test_images(learn: Learner, tracks: pd.DataFrame, **options: Any) -> TfmdDL:
    """A DataLoader of other tracks, prepared as the learner prepares its own.

    Parameters
    ----------
    tracks
        With `image`.
    **options
        As for fastai's `DataLoader.new`.
    """
    return learn.dls.test_dl(tracks, num_workers=0, cls=ImageDataLoader, **options)


def image_batch(learn: Learner, image: str | Path | np.ndarray) -> torch.Tensor:
    """A batch of one image, prepared as the DataLoaders of the learner prepare it.

    Parameters
    ----------
    image : str, Path or np.ndarray [shape=(n_mels, columns), dtype=uint8]

    Returns
    -------
    torch.Tensor [shape=(1, 3, n_mels, columns)]
    """
    is_array = isinstance(image, np.ndarray)
    image = np.stack([image] * 3, axis=-1) if is_array else read_image(image)
    (batch,) = learn.dls.test_dl([image], num_workers=0, bs=1).one_batch()
    return torch.Tensor(batch)  # a plain tensor: fastai's subclass slows down every operation
