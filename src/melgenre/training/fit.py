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
    to_device,
)

from ..heads import member_heads
from .augment import AUGMENTATIONS
from .averaging import BestEpoch, WeightAveraging
from .cached_features import feature_dataloaders, tensor_dataloader
from .calibration import choose_thresholds
from .checkpoint import Checkpoint, checkpoint_file
from .discriminant import fit_discriminant
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


def fit(learn: Learner) -> None:
    """Train by the learner's recipe.

    First the head is trained on the features of the frozen body, which are computed once and cached
    in `data/features`: the second training takes seconds. Recipes with `epochs` then train all
    layers, starting from this head, since a random head would damage the body (Kumar et al.,
    "Fine-tuning can distort pretrained features and underperform out-of-distribution", 2022). The
    images are read once, stay on the device and are augmented there. The state after each epoch is
    saved in `data/checkpoints` until the learner is exported (`discard_checkpoint`), and the same
    training resumes from it. A network from scratch trains all layers throughout.

    Where songs have several genres, the threshold of each genre is then chosen on `valid`.

    The learner has the record of the last stage, so fastai's `learn.recorder.plot_loss()` works.

    Parameters
    ----------
    learn
        Of `melgenre.training.learner.genre_learner`.
    """
    started, earlier = time.perf_counter(), 0.0
    frozen, device = is_frozen(learn), learn.dls.device
    if not frozen:
        learn.training_run = replace(learn.training_run, checkpoint=checkpoint_file(learn))
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
    )
    if is_multi_label_learner(learn):
        learn.training_run = replace(learn.training_run, thresholds=choose_thresholds(learn))


def discard_checkpoint(learn: Learner) -> None:
    """Delete the checkpoint of a training whose result is kept elsewhere."""
    if learn.training_run.checkpoint is not None:
        learn.training_run.checkpoint.unlink(missing_ok=True)


def _fit_head(learn):
    """Train the head, or each head of an ensemble, on the frozen body's features."""
    recipe, dls = get_recipe(learn.training_run.recipe), feature_dataloaders(learn)
    heads, kinds = member_heads(learn.model[1]), recipe.body.split("+")
    with one_thread():
        for head, kind in zip(heads, kinds * (len(heads) // len(kinds)), strict=True):
            if kind == "linear" and recipe.shrinkage is not None:
                x, y = dls.train.do_batch(slice(None))
                fit_discriminant(head, x, y, shrinkage=recipe.shrinkage)
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
    """Train all layers on preloaded images; returns the seconds of an earlier, interrupted run."""
    recipe = get_recipe(learn.training_run.recipe)
    checkpoint, from_files = Checkpoint(learn.training_run.checkpoint), learn.dls
    learn.dls = DataLoaders(*map(_preload, from_files.loaders), device=from_files.device)
    try:
        with mixed_precision(learn), learn.added_cbs(checkpoint):
            if learn.training_run.weights == FROM_SCRATCH:
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
    for name in recipe.augmentation:
        learn.dls.train.after_batch.add(AUGMENTATIONS[name]())
    learn.create_opt()
    callbacks = [BnFreeze(), WeightAveraging(recipe.averaging)]
    if (learn.dls.valid_ds.items["split"] == "valid").all():  # nothing is chosen on `test`
        callbacks.append(BestEpoch(patience=max(5, recipe.epochs // 4)))
    rates = slice(recipe.lr / recipe.lr_ratio, recipe.lr)
    learn.fit_one_cycle(recipe.epochs, rates, pct_start=0.1, cbs=callbacks)


def _preload(dl):
    """A DataLoader with the same batches, from images that are read now and lie on the device."""
    images, genres = to_device(dl.create_batch([dl.do_item(i) for i in range(dl.n)]), dl.device)
    return tensor_dataloader(dl, images, genres)
