"""The table of tracks -> fastai's DataLoaders.

Nothing is resized, squeezed or flipped, since up and down is pitch and left and right is time.
"""

import numpy as np
import pandas as pd
from fastai.vision.all import (
    CategoryBlock,
    ColReader,
    DataBlock,
    DataLoaders,
    ImageBlock,
    MultiCategoryBlock,
    Normalize,
    default_device,
)

from ..data.genres import genre_lists, is_multi_label, one_row_per_genre
from ..data.image_files import read_image
from ..data.mel_settings import check_images, image_settings
from ..data.splits import SplitError
from ..networks import IMAGENET_MEAN, IMAGENET_STD
from .distributed import join_processes
from .image_loader import ImageDataLoader


def image_dataloaders(tracks: pd.DataFrame, *, batch_size: int = 32) -> DataLoaders:
    """Make fastai's DataLoaders of a table of tracks.

    Parameters
    ----------
    tracks
        With `image`, `genre` and `split`: `train` for training, `valid` for monitoring. A split
        without `valid` monitors `test`: its accuracy is shown, and nothing is chosen by it. Where
        `genre` is a list, the DataLoaders are multi-label.
    batch_size
        Smaller where that would leave fewer than eight batches per epoch. Several processes
        (`accelerate launch`) divide each batch among them.

    Returns
    -------
    fastai.data.core.DataLoaders
        Batches [shape=(batch, 3, n_mels, columns)], normalised as ImageNet is.

    Raises
    ------
    ImageError
        If the images were made with different settings.
    SplitError
        If a part is empty, or has a genre that is not in the training set.
    """
    join_processes()
    monitored = "valid" if (tracks["split"] == "valid").any() else "test"
    parts = [np.flatnonzero(tracks["split"] == part) for part in ("train", monitored)]
    named = tracks.filter(["track_id", "genre"])
    train, valid = (set(one_row_per_genre(named.iloc[part])["genre"]) for part in parts)
    if not train or not valid or valid - train:
        raise SplitError(
            f"The training set has {len(train)} genres and the validation set {len(valid)}, of "
            f"which {len(valid - train)} are not in the training set. Split the tracks again."
        )
    first = tracks["image"].iloc[parts[0][0]]
    check_images(tracks["image"].iloc[np.concatenate(parts)], image_settings(first))
    target = CategoryBlock(vocab=sorted(train))
    if is_multi_label(tracks):
        target = MultiCategoryBlock(vocab=sorted(train))
        tracks = tracks.assign(genre=genre_lists(tracks))
    block = DataBlock(
        blocks=(ImageBlock, target),
        get_x=ColReader("image"),
        get_y=ColReader("genre"),
        splitter=lambda _: ([0], [1]),
        batch_tfms=Normalize.from_stats(IMAGENET_MEAN, IMAGENET_STD),
    )
    # fastai opens an image while it sets the transforms up, and cannot open one in a shard. From a
    # track of each part it makes the datasets; of all tracks it would hold three tables.
    few = tracks.iloc[[part[0] for part in parts]].assign(image=read_image(first))
    both = block.datasets(few)
    datasets = [both.subset(number) for number in range(2)]
    for dataset, part in zip(datasets, parts, strict=True):
        image, genre = dataset.tls
        image.items = genre.items = tracks.iloc[part]
    return DataLoaders.from_dsets(
        *datasets,
        bs=min(batch_size, max(4, len(parts[0]) // 8), len(parts[0])),
        dl_type=ImageDataLoader,
        after_item=block.item_tfms,
        after_batch=block.batch_tfms,
        num_workers=0,  # an image takes a millisecond to read: processes would only take time
        device=default_device(),
    )
