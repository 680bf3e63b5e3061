"""Training by a recipe: a head on cached features of a frozen body, then all layers."""

import time
from dataclasses import replace

import torch
from fastai.vision.all import (
    BnFreeze,
    DataLoaders,
    Learner,
    ProgressCallback,
    bn_types,
    num_distrib,
    rank_distrib,
    to_device,
)

from ..heads import member_heads
from .augment import AUGMENTATIONS
from .averaging import BestEpoch, WeightAveraging
from .cached_features import feature_dataloaders, tensor_dataloader
from .calibration import choose_thresholds
from .checkpoint import Checkpoint, checkpoint_file
from .discriminant import fit_discriminant
from .distributed import compute_features, data_parallel, joint_training, process_batch_size
from .learner import is_frozen
from .multi_label import is_multi_label_learner
from .precision import (
    device_name,
    feature_dtype,
    mixed_precision,
    one_thread,
    precision_name,
    training_dtype,
)
from .recipes import FROM_SCRATCH, Recipe, get_recipe

MOST_PRELOADED = 4 * 10**9
"""Bytes of images that are loaded to the device before all layers are trained: 27,000 images."""


def fit(learn: Learner) -> None:
    """Train by the learner's recipe.

    First the head is trained on the features of the frozen body, which are computed once and cached
    in `data/features`: the second training takes seconds. Recipes with `epochs` then train all
    layers, starting from this head, since a random head would damage the body (Kumar et al.,
    "Fine-tuning can distort pretrained features and underperform out-of-distribution", 2022). The
    images are read once, stay on the device and are augmented there; more than `MOST_PRELOADED`
    bytes of them are read in each epoch instead. The state after each epoch is saved in
    `data/checkpoints` until the learner is exported (`discard_checkpoint`), and the same training
    resumes from it. A network from scratch trains all layers throughout.

    Where songs have several genres, the threshold of each genre is then chosen on `valid`.

    The learner has the record of the last stage, so fastai's `learn.recorder.plot_loss()` works.

    In each of several processes (`accelerate launch`), this call computes a share of the features,
    fits the same head, and trains all layers on a share of each batch (Li et al., "PyTorch
    Distributed: experiences on accelerating data parallel training", 2020).

    Parameters
    ----------
    learn
        Of `melgenre.training.learner.genre_learner`.

    Raises
    ------
    ProcessError
        If one of several processes ends, or trains something else.
    """
    started, earlier = time.perf_counter(), 0.0
    frozen, device = is_frozen(learn), learn.dls.device
    if not frozen:
        learn.training_run = replace(learn.training_run, checkpoint=checkpoint_file(learn))
    with joint_training(learn):
        if learn.training_run.weights != FROM_SCRATCH:
            _fit_head(learn)
        if not frozen:
            earlier = _fit_all_layers(learn)
    dtype = (feature_dtype if frozen else training_dtype)(device.type)
    learn.training_run = replace(
        learn.training_run,
        seconds=round(time.perf_counter() - started + earlier, 1),
        device=device_name(device),
        precision=precision_name(dtype),
        threads=1 if frozen else torch.get_num_threads(),
        processes=max(1, num_distrib()),
    )
    if is_multi_label_learner(learn):
        learn.training_run = replace(learn.training_run, thresholds=choose_thresholds(learn))


def discard_checkpoint(learn: Learner) -> None:
    """Delete the checkpoint of a training whose result is kept elsewhere."""
    if learn.training_run.checkpoint is not None and not rank_distrib():
        learn.training_run.checkpoint.unlink(missing_ok=True)


def _fit_head(learn):
    """Train the head, or each head of an ensemble, on the frozen body's features."""
    compute_features(learn)
    recipe, dls = get_recipe(learn.training_run.recipe), feature_dataloaders(learn)
    heads, kinds = member_heads(learn.model[1]), recipe.body.split("+")
    with one_thread():
        for head, kind in zip(heads, kinds * (len(heads) // len(kinds)), strict=True):
            if kind == "linear" and recipe.shrinkage is not None:
                fit_discriminant(
                    head,
                    dls.train.x,
                    dls.train.y,
                    shrinkage=recipe.shrinkage,
                    balanced=recipe.balanced,
                )
            else:
                _train_head(learn, head, dls, recipe)


def _train_head(learn, head, dls, recipe):
    """Train one head; the learner gets its record."""
    learner = Learner(
        dls, head, loss_func=learn.loss_func, opt_func=learn.opt_func, metrics=learn.metrics
    )
    learner.logger = learn.logger
    if not hasattr(learn, "progress"):  # inside `learn.no_bar()`
        learner.remove_cb(ProgressCallback)
    learner.fit_one_cycle(recipe.freeze_epochs)
    for name in ("values", "losses", "iters", "lrs", "metric_names"):
        setattr(learn.recorder, name, getattr(learner.recorder, name))


def _fit_all_layers(learn):
    """Train all layers; returns the seconds of an earlier, interrupted run.

    The images are preloaded, or read in each epoch if they are too many.
    """
    recipe = get_recipe(learn.training_run.recipe)
    checkpoint, from_files = Checkpoint(learn.training_run.checkpoint), learn.dls
    scratch = learn.training_run.weights == FROM_SCRATCH
    images = sum(dl.n for dl in from_files.loaders)
    fits = images * from_files.train.do_item(0)[0].nbytes <= MOST_PRELOADED
    load = _preload if fits else _stream
    learn.dls = DataLoaders(*map(load, from_files.loaders), device=from_files.device)
    for name in () if scratch else recipe.augmentation:
        learn.dls.train.after_batch.add(AUGMENTATIONS[name]())
    try:
        with mixed_precision(learn), data_parallel(learn), learn.added_cbs(checkpoint):
            if scratch:
                learn.fit_one_cycle(recipe.freeze_epochs + recipe.epochs, 3e-3)
            else:
                _fine_tune(learn, recipe)
    finally:
        learn.dls = from_files
    return checkpoint.seconds


def _fine_tune(learn: Learner, recipe: Recipe) -> None:
    """Train all layers of a network whose head is fitted, the first ones at smaller rates."""
    learn.unfreeze()
    for layer in learn.model[0].modules():
        if isinstance(layer, bn_types):
            layer.requires_grad_(False)  # and `BnFreeze` keeps their statistics
    learn.create_opt()
    callbacks = [BnFreeze(), WeightAveraging(recipe.averaging)]
    if (learn.dls.valid_ds.items["split"] == "valid").all():  # nothing is chosen on `test`
        callbacks.append(BestEpoch(patience=max(5, recipe.epochs // 4)))
    rates = slice(recipe.lr / recipe.lr_ratio, recipe.lr)
    learn.fit_one_cycle(recipe.epochs, rates, pct_start=0.1, cbs=callbacks)


def _stream(dl):
    """A DataLoader with the same batches, from images that are read in each epoch."""
    return dl.new(bs=process_batch_size(dl.bs))


def _preload(dl):
    """A DataLoader with the same batches, from images that are read now and lie on the device."""
    images, genres = to_device(dl.create_batch([dl.do_item(i) for i in range(dl.n)]), dl.device)
    return tensor_dataloader(dl, images, genres, bs=process_batch_size(dl.bs))
