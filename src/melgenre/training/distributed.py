"""Training by several processes, one per GPU, as `accelerate launch` or `torchrun` starts them.

fastai's `distrib_ctx` trains them data-parallel: each process computes the gradients of its share
of a batch, and all take the same step by the mean. Alone, nothing here changes anything.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fastai.vision.all import (
    Callback,
    Learner,
    ProgressCallback,
    TfmdDL,
    default_device,
    distrib_barrier,
    noop,
    num_distrib,
    rank_distrib,
    to_detach,
)

from ..errors import MelgenreError, extra_packages
from .cached_features import extract_features
from .checkpoint import checkpoint_file
from .precision import feature_dtype


class ProcessError(MelgenreError, RuntimeError):
    """The processes of a training cannot work together, or one of them has ended."""


def join_processes() -> None:
    """Connect this process with the others of its launch, and choose its GPU; alone, do nothing."""
    if num_distrib() <= 1:
        return
    with extra_packages("accelerate", "Training by several processes"):
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
    PartialState(cpu=on_cpu)
    if on_cpu:
        default_device(False)


def process_batch_size(batch_size: int) -> int:
    """The share of each process in a batch: at least two images, which batch norm needs.

    All shares together are the batch, so a recipe takes the same steps with any number of
    processes.
    """
    return max(min(2, batch_size), math.ceil(batch_size / max(1, num_distrib())))


@contextmanager
def joint_training(learn: Learner) -> Iterator[None]:
    """Train in all processes: only the first one prints, and the end of one ends all of them.

    Raises
    ------
    ProcessError
        If the processes do not train the same network on the same images, or if one has ended.
    """
    if num_distrib() <= 1:
        yield
        return
    join_processes()
    if rank_distrib():
        learn.logger = noop
        learn.remove_cb(ProgressCallback)
    try:
        _check_same(learn)
        yield
    except RuntimeError as error:
        # Of NCCL; gloo has no class of its own.
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        raise ProcessError(
            "Another process of this training has ended, so this one ends too. The cause is in "
            "its own messages. Start the training again: it resumes after the last saved epoch."
        ) from error


def _check_same(learn):
    """Raise `ProcessError` unless all processes begin the same training at the same epoch."""
    file = checkpoint_file(learn)
    distrib_barrier()  # the first process may still delete the checkpoint of an earlier training
    begins: list[Any] = [None] * num_distrib()
    torch.distributed.all_gather_object(begins, (file.name, file.exists()))
    if len(set(begins)) > 1:
        raise ProcessError(
            "The processes of this training differ in their images, network or checkpoint. Start "
            "all of them with the same arguments, and on several machines share the project's "
            "folder `data`."
        )


def compute_features(learn: Learner) -> None:
    """Compute the features to train on, each process a share of them; the cache then has all."""
    if num_distrib() <= 1:
        return
    for part in (learn.dls.train_ds, learn.dls.valid_ds):
        share = part.items.iloc[rank_distrib() :: num_distrib()]
        if len(share):
            extract_features(learn, share, dtype=feature_dtype(learn.dls.device.type))
    distrib_barrier()


@contextmanager
def data_parallel(learn: Learner) -> Iterator[None]:
    """Train the whole network data-parallel, by fastai's `distrib_ctx`.

    Batch norm is not synchronised, which would need a GPU: the frozen ones of fine-tuning keep
    their statistics, and others use those of the first process's share.

    Parameters
    ----------
    learn
        Its DataLoaders have batches of `process_batch_size`.
    """
    if num_distrib() <= 1:
        yield
        return
    from .distributed_dl import SharedDL

    learn.dls.loaders = [SharedDL(dl) for dl in learn.dls.loaders]
    own = OwnRandomNumbers(learn.training_run.seed)
    try:
        # The precision is that of `mixed_precision`: Accelerate's would stay in the network.
        with learn.distrib_ctx(sync_bn=False, mixed_precision="no"), learn.added_cbs(own):
            yield
    finally:
        if rank_distrib():
            learn.remove_cb(ProgressCallback)  # fastai adds it, even if there was none before


class OwnRandomNumbers(Callback):
    """Draw other augmentations and dropout in each process, and the same ones when resumed.

    The first process keeps the random numbers that it would have alone.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def before_epoch(self) -> None:
        """Seed by the epoch: a checkpoint has the random state of the first process alone."""
        if rank_distrib():
            torch.manual_seed(10_000 * (rank_distrib() + 1000 * self.seed) + self.epoch)


def predict_alone(dl: TfmdDL) -> TfmdDL:
    """Make fastai keep the predictions of a DataLoader: each process predicts all of its items."""

    def keep(batch, cpu=True, gather=True):
        return to_detach(batch, cpu, gather=False)

    dl.to_detach = keep
    return dl
