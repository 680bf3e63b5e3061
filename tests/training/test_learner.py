import copy
import itertools
import json
import random
import shutil
import stat
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import run_of
from fastai.vision.all import Callback, ClassificationInterpretation, load_learner
from PIL import Image

from melgenre.data.mel_settings import ImageError
from melgenre.data.splits import held_out
from melgenre.errors import MelgenreWarning
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.model_folder import ModelError
from melgenre.networks import (
    ArchitectureError,
    build_network,
    get_architecture,
    weights_source,
)
from melgenre.training.augment import AUGMENTATIONS
from melgenre.training.cached_features import extract_features
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.export import export_learner
from melgenre.training.exported import load_exported, load_split
from melgenre.training.fit import _preload, discard_checkpoint, fit
from melgenre.training.learner import genre_learner, predict_tracks
from melgenre.training.precision import mixed_precision
from melgenre.training.recipes import RECIPES, Recipe, RecipeError, get_recipe


def test_images_reach_the_network_without_resizing(images):
    dls = image_dataloaders(images)
    x, y = dls.one_batch()
    assert x.shape[1:] == (3, 128, 387)
    assert list(dls.vocab) == sorted(images["genre"].unique())
    assert len(dls.train_ds) == (images["split"] == "train").sum()
    assert len(dls.valid_ds) == (images["split"] == "test").sum()
    # A batch holds the grey image in three channels, normalised with the statistics of ImageNet.
    image, label = dls.valid_ds[0]
    batch = dls.valid.one_batch()[0][0].numpy()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    grey = np.asarray(image).transpose(2, 0, 1) / 255
    expected = (grey - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(batch, expected, atol=1e-5)


def test_tracks_in_no_part_of_the_split_are_not_used(images):
    some = images.assign(split=images["split"].where(images.index % 2 == 0))
    dls = image_dataloaders(some)
    assert len(dls.train_ds) + len(dls.valid_ds) == some["split"].notna().sum()


def test_a_split_that_cannot_be_trained_on_raises_an_error(images):
    genre = images["genre"].iloc[0]
    hidden = images["split"].mask((images["genre"] == genre) & (images["split"] == "train"), None)
    for split in ("train", "test", hidden):
        with pytest.raises(ValueError, match="Split the tracks again"):
            image_dataloaders(images.assign(split=split))


def test_an_image_of_another_size_raises_an_error(images, tmp_path):
    Image.new("L", (1292, 128)).save(tmp_path / "wide.png")
    wrong = images.copy()
    wrong.loc[0, "image"] = str(tmp_path / "wide.png")
    with pytest.raises(ImageError, match="wide.png"):
        image_dataloaders(wrong)


def test_the_validation_part_is_monitored_if_the_split_has_one(images):
    valid = images["split"].mask((images["split"] == "test") & (images.index % 2 == 0), "valid")
    dls = image_dataloaders(images.assign(split=valid))
    assert set(dls.valid_ds.items["split"]) == {"valid"}


def test_training_lowers_the_loss_and_is_recorded(learner, images):
    few = images[images["genre"].isin(learner.dls.vocab)]
    assert learner.training_losses[-1] < learner.training_losses[0]
    assert learner.training_run.weights == "none (from scratch)"
    assert learner.training_run.train_tracks == (few["split"] == "train").sum()
    assert learner.training_run.mel_settings["hop_length"] == 1711
    assert learner.training_run.seconds > 0


@pytest.fixture(params=["frozen body", "all layers"])
def fitted(request, images, tmp_path, monkeypatch):
    """A learner after `fit`: as if from ImageNet weights, or from scratch."""
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:3])]
    recipe = "texture" if request.param == "frozen body" else "smoke-test"
    learn = genre_learner(image_dataloaders(few), "resnet18", recipe, pretrained=False)
    if request.param == "frozen body":
        as_if_pretrained(learn)
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    return learn


def as_if_pretrained(learn):
    """Make a learner look as if it had started from ImageNet weights."""
    learn.training_run = replace(learn.training_run, weights="as if from ImageNet")


@pytest.mark.bf16
@pytest.mark.slow
def test_fastai_methods_work_after_fit(fitted, images):
    with fitted.no_bar():
        recorder = fitted.recorder
        assert len(recorder.losses) == len(recorder.lrs) >= len(recorder.values) > 0
        ax = recorder.plot_loss()
        assert [line.get_label() for line in ax.lines] == ["train", "valid"]
        loss, accuracy = fitted.validate()
        predictions = predict_tracks(fitted, fitted.dls.valid_ds.items.reset_index(drop=True))
        right = (predictions["predicted"] == predictions["genre"]).mean()
        assert accuracy == pytest.approx(right)
        assert loss > 0
        fitted.show_results(max_n=2)
        genre, _, probabilities = fitted.predict(predictions["image"].iloc[0])
        assert genre == predictions["predicted"].iloc[0]
        expected = predictions[[f"p_{one}" for one in fitted.dls.vocab]].iloc[0].to_numpy(float)
        np.testing.assert_allclose(probabilities, expected, atol=1e-4)
        interpretation = ClassificationInterpretation.from_learner(fitted)
        counts = interpretation.confusion_matrix()
        assert counts.trace() == round(right * len(predictions))
        assert counts.sum() == len(predictions)


@pytest.mark.slow
def test_the_number_of_threads_is_recorded_if_the_result_depends_on_it(
    images, tmp_path, monkeypatch
):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:2])]
    names, before = set(), torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            learn = genre_learner(
                image_dataloaders(few), "resnet18", "smoke-test", pretrained=False
            )
            with learn.no_bar(), learn.no_logging():
                fit(learn)
            assert learn.training_run.threads == threads
        finally:
            torch.set_num_threads(before)
        names.add(learn.training_run.checkpoint)
    assert len(names) == 2, "neither resumes from the other"


@pytest.mark.slow
def test_the_same_seed_gives_the_same_network(images):
    dls = image_dataloaders(images)
    one, two = (
        genre_learner(dls, "resnet18", "smoke-test", pretrained=False, seed=7) for _ in range(2)
    )
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache, and a proxy that does not exist: no network access."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def test_without_imagenet_weights_a_warning_is_given_and_training_starts_from_scratch(
    images, offline
):
    dls = image_dataloaders(images)
    with pytest.warns(UserWarning, match="weights of resnet18 cannot be downloaded.*from scratch"):
        learn = genre_learner(dls, "resnet18", "frozen-head")
    assert learn.training_run.weights == "none (from scratch)"
    assert all(p.requires_grad for p in learn.model.parameters())


@pytest.mark.slow
def test_without_imagenet_weights_the_built_in_backbone_gives_the_textures(images, offline):
    dls = image_dataloaders(images)
    with pytest.warns(UserWarning, match="resnet18 cannot be.*first blocks of efficientnet_lite0"):
        learn = genre_learner(dls, "resnet18", "texture", seed=1)
    run = learn.training_run
    assert (run.architecture, run.model) == ("efficientnet_lite0", "efficientnet_lite0, texture")
    assert run.weights.startswith("EfficientNet-Lite0's first blocks") and run.seed == 1
    same = genre_learner(dls, "efficientnet_lite0", "texture", seed=1)
    for a, b in zip(learn.model.parameters(), same.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.warns(UserWarning, match="resnet18 cannot be.*first blocks of efficientnet_lite0"):
        tuned = genre_learner(dls, "resnet18", "fine-tune").training_run
    assert tuned.model == "efficientnet_lite0, fine-tune-texture"


def test_errors_other_than_of_the_download_are_raised(images, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("size mismatch")

    monkeypatch.setattr("melgenre.training.learner.vision_learner", broken)
    with pytest.raises(RuntimeError, match="size mismatch"):
        genre_learner(image_dataloaders(images), "resnet18", "frozen-head")


def test_an_unknown_recipe_raises_an_error_that_lists_the_recipes(images):
    with pytest.raises(RecipeError, match="No recipe 'quick'. Choose one of texture, "):
        genre_learner(image_dataloaders(images), "resnet18", "quick", pretrained=False)


def test_a_recipe_of_all_layers_takes_a_number_of_epochs():
    assert get_recipe("fine-tune@100") == replace(RECIPES["fine-tune"], epochs=100)
    with pytest.raises(RecipeError, match="trains a head on a frozen body, so 'texture@9' has no"):
        get_recipe("texture@9")
    for name in ("fine-tune@", "fine-tune@0", "fine-tune@-1", "fine-tune@many"):
        with pytest.raises(RecipeError, match=f"'{name}' has no number of epochs"):
            get_recipe(name)


def test_substitute_imagenet_weights_are_recognised_by_their_checksum(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").write_bytes(b"something else")
    assert weights_source("resnet18").startswith("substitute for torchvision")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "resnet10t", "mixnet_s"])
def test_any_architecture_of_torchvision_or_timm_works(name):
    network = build_network(name, 10).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 128, 387)).shape == (2, 10)


def test_an_unknown_architecture_raises_an_error_with_similar_names():
    with pytest.raises(ArchitectureError, match="'resnet35'.*resnet34"):
        get_architecture("resnet35")


def test_an_architecture_that_takes_only_square_images_raises_an_error(images):
    dls = image_dataloaders(images)
    with pytest.raises(ArchitectureError, match="does not take images of 128 x 387"):
        genre_learner(dls, "vit_tiny_patch16_224", "smoke-test", pretrained=False)


@pytest.fixture(params=["0", "1"], ids=["float32", "bf16"])
def bf16(request, monkeypatch):
    """bf16 forced off and on, whatever the CPU supports."""
    monkeypatch.setenv("MELGENRE_BF16", request.param)
    return request.param == "1"


def record_head_outputs(learn, outputs):
    """Record the mode of the head and the dtype of its output at each call."""
    return learn.model[1].register_forward_hook(
        lambda module, x, y: outputs.append((module.training, y.dtype))
    )


@pytest.mark.bf16
@pytest.mark.slow
def test_training_uses_the_fastest_precision_and_predictions_are_float32(
    images, bf16, tmp_path, monkeypatch
):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))  # no checkpoint to resume from
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:2])]
    learn = genre_learner(image_dataloaders(few), "resnet18", "smoke-test", pretrained=False)
    outputs = []
    hook = record_head_outputs(learn, outputs)
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    predict_tracks(learn, few)
    hook.remove()
    assert {dtype for training, dtype in outputs if training} == {
        torch.bfloat16 if bf16 else torch.float32
    }
    assert {dtype for training, dtype in outputs if not training} == {torch.float32}
    assert all(p.dtype == torch.float32 for p in learn.model.parameters())
    assert learn.training_run.precision == ("bfloat16" if bf16 else "float32")


@pytest.mark.bf16
@pytest.mark.slow
def test_mixed_precision_can_be_nested_and_interrupted(images, monkeypatch):
    monkeypatch.setenv("MELGENRE_BF16", "1")
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:2])]
    learn = genre_learner(image_dataloaders(few), "resnet18", "smoke-test", pretrained=False)
    batch = two_images(learn)

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = learn.model[1].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt), learn.no_bar(), mixed_precision(learn):
        learn.fit(1)
    hook.remove()
    outputs = []
    hook = record_head_outputs(learn, outputs)
    with mixed_precision(learn), mixed_precision(learn):
        learn.model.train()(batch)
    learn.model.train()(batch)
    hook.remove()
    assert [dtype for _, dtype in outputs] == [torch.bfloat16, torch.float32]
    assert not torch.is_autocast_enabled("cpu")
    assert "forward" not in vars(learn.model)


def two_images(learn):
    return torch.Tensor(learn.dls.train.one_batch()[0][:2])


@pytest.mark.slow
def test_fastais_load_learner_loads_an_exported_learner_in_another_process(
    exported, images, tmp_path
):
    """Plain `load_learner`, in another working directory."""
    image = images["image"].iloc[0]
    program = (
        "import sys; from fastai.vision.all import Callback, load_learner\n"
        "learn = load_learner(sys.argv[1])\n"
        "with learn.no_bar(): genre, _, p = learn.predict(sys.argv[2])\n"
        "print(genre, *p.tolist())"
    )
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, exported / "learner.pkl", image],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = load_learner(exported / "learner.pkl")
    with here.no_bar():
        genre, _, probabilities = here.predict(image)
    assert output[0] == genre
    np.testing.assert_allclose([float(p) for p in output[1:]], probabilities, atol=1e-6)


@pytest.mark.slow
def test_an_export_does_not_change_the_learner(learner, exported, images, tmp_path):
    few = learner.dls.valid_ds.items.reset_index(drop=True)
    before = predict_tracks(learner, few)
    opt, model = learner.opt, learner.model
    run = learner.training_run
    export_learner(run_of(learner, before), tmp_path / "again")
    assert (learner.opt, learner.model, learner.training_run) == (opt, model, run)
    np.testing.assert_array_equal(
        predict_tracks(learner, few).filter(like="p_"), before.filter(like="p_")
    )
    # The exported copy is calibrated: the same genres, and logits divided by the temperature.
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    expected = before.filter(like="p_").to_numpy() ** (1 / config["calibration"]["temperature"])
    expected /= expected.sum(axis=1, keepdims=True)
    calibrated, _ = load_exported(tmp_path / "again")
    np.testing.assert_allclose(
        predict_tracks(calibrated, few).filter(like="p_"), expected, atol=1e-4
    )


def export_again(learner, folder):
    return export_learner(run_of(learner), folder)


@pytest.mark.slow
def test_an_export_replaces_a_model_atomically_and_keeps_other_files(learner, tmp_path):
    folder = export_again(learner, tmp_path / "model")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    modes = {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert len(modes) == 1, "all files have the permissions of any new file"
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("melgenre.training.export._export_onnx", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_again(learner, folder)
    assert {name: (folder / name).read_bytes() for name in before} == before
    export_again(learner, folder)
    assert (folder / "notes" / "mine.txt").read_text() == "mine"
    assert (folder / "notes").stat().st_mode == tmp_path.joinpath("model").stat().st_mode
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@contextmanager
def small_disk():
    """Limit the files of this process to 10 kB, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
def test_an_export_to_a_full_disk_raises_an_error_and_leaves_no_file(learner, tmp_path):
    with pytest.raises(ModelError, match="cannot be written to .*model .* Make room"), small_disk():
        export_again(learner, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_does_not_stop_a_training(images, tmp_path, monkeypatch):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    monkeypatch.setattr("melgenre.training.checkpoint.SECONDS_BETWEEN", 0)
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:2])]
    for weights, recipe, message in (
        ("none (from scratch)", "smoke-test", "cannot be saved"),
        ("as if", "texture", "cannot be cached"),
    ):
        learn = genre_learner(image_dataloaders(few), "resnet18", recipe, pretrained=False)
        learn.training_run = replace(learn.training_run, weights=weights)
        with learn.no_bar(), learn.no_logging(), pytest.warns(match=message), small_disk():
            fit(learn)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_an_export_never_replaces_a_folder_that_is_not_a_model(learner, tmp_path):
    (tmp_path / "my songs").mkdir()
    (tmp_path / "my songs" / "song.mp3").touch()
    for folder in (tmp_path / "my songs", tmp_path / "my songs" / "song.mp3"):
        with pytest.raises(ModelError, match="exists and is not a model's folder"):
            export_again(learner, folder)
    assert (tmp_path / "my songs" / "song.mp3").exists()


@pytest.mark.slow
def test_a_network_that_diverged_is_not_exported(learner, tmp_path):
    broken = copy.deepcopy(learner.model)
    next(broken.parameters()).data[0] = float("nan")
    model, learner.model = learner.model, broken
    try:
        with pytest.raises(ModelError, match="its training diverged"):
            export_again(learner, tmp_path / "model")
    finally:
        learner.model = model
    assert not (tmp_path / "model").exists()


def test_an_export_contains_its_split(learner, exported, images):
    split = load_split(exported, images).set_index("track_id")["split"]
    for part, items in (("train", learner.dls.train_ds), ("test", learner.dls.valid_ds)):
        assert set(split.index[split == part]) == set(items.items["track_id"])
    # Tracks of other genres belong to no part.
    assert split.isna().sum() == (~images["genre"].isin(learner.dls.vocab)).sum()
    # Missing or new songs change nothing.
    fewer = load_split(exported, images.iloc[::3])
    assert fewer["split"].equals(
        split[fewer["track_id"]].reset_index(drop=True).set_axis(fewer.index)
    )
    with pytest.warns(MelgenreWarning, match="so all of them are test tracks"):
        others = load_split(exported, images.assign(track_id="other/" + images["track_id"]))
    assert set(others["split"]) == {"test"}


def test_the_split_of_an_older_export_is_read(exported, images, tmp_path):
    """Up to format 4, the test part of a split without a validation part was named `valid`."""
    shutil.copytree(exported, tmp_path / "old")
    file = tmp_path / "old" / "split.csv"
    file.write_text(file.read_text().replace(",test", ",valid"))
    assert held_out(load_split(tmp_path / "old", images)).equals(
        held_out(load_split(exported, images))
    )


def test_an_export_without_a_split_raises_an_error(exported, images, tmp_path):
    shutil.copytree(exported, tmp_path / "old", ignore=shutil.ignore_patterns("split.csv"))
    with pytest.raises(ModelError, match="old has no split.csv.*Export"):
        load_split(tmp_path / "old", images)


@pytest.mark.slow
def test_few_calibration_clips_give_no_ood_threshold(learner, exported, images, tmp_path):
    folder = export_again(learner, tmp_path / "few")
    assert json.loads((folder / "config.json").read_text())["calibration"]["ood_threshold"] is None
    assert "Calibrated on fewer than 50 clips" in (folder / "README.md").read_text()
    silence = np.zeros(22050 * 3, np.float32)
    assert not GenreClassifier.load(folder).predict((silence, 22050)).is_ood


def test_an_export_records_its_provenance(exported):
    config = json.loads((exported / "config.json").read_text())
    assert config["format_version"] == 6
    assert config["mel_settings"]["hop_length"] == 1711
    assert config["result"]["protocol"] == "artist-split"
    assert config["training"]["weights"] == "none (from scratch)"
    assert config["training"]["recipe"] == "smoke-test"
    learn, same = load_exported(exported)
    assert learn.training_run.provenance() == config["training"]
    assert all(same[name] == config[name] for name in config.keys() - {"result"})
    assert config["result"].items() <= same["result"].items()
    assert list(learn.dls.vocab) == config["genres"]


def test_an_export_contains_no_path_of_this_machine(exported, images):
    folder = str(images["image"].iloc[0]).rsplit("/", 2)[0].encode()
    for file in exported.iterdir():
        assert folder not in file.read_bytes(), file.name


def test_a_missing_export_raises_an_error(tmp_path):
    with pytest.raises(ModelError, match="Run notebook 04"):
        load_exported(tmp_path / "resnet34")


@pytest.mark.slow
def test_from_scratch_all_layers_are_trained_in_every_epoch(images):
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:2])]
    learn = genre_learner(image_dataloaders(few), "resnet18", "smoke-test", pretrained=False)
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    assert learn.training_run.recipe == "smoke-test"
    assert len(learn.recorder.values) == 4


class Killed(BaseException):
    """Ends a training as a kill does, without clean-up."""


@pytest.mark.slow
@pytest.mark.parametrize("part", ["test", "valid"])
@pytest.mark.parametrize("killed_in", [1, 2, 3])
def test_an_interrupted_training_resumes_and_gives_the_same_weights(
    images, tmp_path, monkeypatch, killed_in, part
):
    """Fine-tuning as if from ImageNet weights: one epoch of the head, then three of all layers."""
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    monkeypatch.setattr("melgenre.training.checkpoint.SECONDS_BETWEEN", 0)
    recipe = Recipe("whole", freeze_epochs=1, epochs=3, augmentation=tuple(AUGMENTATIONS))
    monkeypatch.setitem(RECIPES, "fine-tune", recipe)
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:2])]
    few = few.assign(split=few["split"].replace("test", part))  # of `valid`, the best epoch is kept

    def train(*callbacks):
        learn = genre_learner(image_dataloaders(few), "resnet18", "fine-tune", pretrained=False)
        as_if_pretrained(learn)
        learn.add_cbs(callbacks)
        with learn.no_bar(), learn.no_logging():
            fit(learn)
        return learn

    class Kill(Callback):
        order, epochs = 101, 0

        def after_epoch(self):
            self.epochs += 1
            if self.epochs == killed_in:
                raise Killed

    undisturbed = train()
    values = list(undisturbed.recorder.values)
    monkeypatch.setattr(
        "melgenre.training.checkpoint.time.monotonic", itertools.count(step=1000).__next__
    )
    discard_checkpoint(undisturbed)
    with pytest.raises(Killed):
        train(Kill())
    random.seed(5)  # another process has another random state
    with pytest.warns(MelgenreWarning, match=f"training resumes after epoch {killed_in}"):
        resumed = train()
    assert resumed.training_run.seconds > 1000, "the time before the interruption counts"
    for name, weight in undisturbed.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], weight, atol=0, rtol=0)
    np.testing.assert_array_equal(list(map(list, resumed.recorder.values)), list(map(list, values)))
    assert len(list((tmp_path / "data" / "checkpoints").iterdir())) == 1
    discard_checkpoint(resumed)
    assert not list((tmp_path / "data" / "checkpoints").iterdir())


@pytest.mark.bf16
@pytest.mark.slow
def test_fine_tuning_keeps_the_average_of_the_weights_and_the_best_epoch_on_valid(
    images, tmp_path, monkeypatch
):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    # Saved after each epoch: the second training must not resume the first, of another part.
    monkeypatch.setattr("melgenre.training.checkpoint.SECONDS_BETWEEN", 0)
    recipe = Recipe("whole", freeze_epochs=1, epochs=4, lr=0.3)  # so large that it diverges
    monkeypatch.setitem(RECIPES, "fine-tune", recipe)
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:2])]
    losses, accuracies = {}, {}
    for part in ("test", "valid"):
        split = few.assign(split=few["split"].replace("test", part))
        learn = genre_learner(image_dataloaders(split), "resnet18", "fine-tune", pretrained=False)
        as_if_pretrained(learn)
        norms = {k: v.clone() for k, v in learn.model[0].state_dict().items() if "bn" in k}
        with learn.no_bar(), learn.no_logging():
            fit(learn)
        for name, before in norms.items():
            torch.testing.assert_close(learn.model[0].state_dict()[name], before, atol=0, rtol=0)
        losses[part] = [float(epoch[1]) for epoch in learn.recorder.values]
        with learn.no_bar(), learn.no_logging():
            accuracies[part] = float(learn.validate()[0])
    assert losses["valid"] == losses["test"]
    assert losses["test"][-1] > min(losses["test"])
    assert accuracies["test"] == pytest.approx(losses["test"][-1], rel=0.01)
    assert accuracies["valid"] == pytest.approx(min(losses["valid"]), rel=0.01)


@pytest.mark.slow
@pytest.mark.filterwarnings("error:.*resumes")
def test_another_training_does_not_resume_and_a_damaged_checkpoint_gives_a_warning(
    images, tmp_path, monkeypatch
):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    monkeypatch.setattr("melgenre.training.checkpoint.SECONDS_BETWEEN", 0)
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:2])]
    for seed in (0, 1):
        learn = genre_learner(
            image_dataloaders(few), "resnet18", "smoke-test", pretrained=False, seed=seed
        )
        with learn.no_bar(), learn.no_logging():
            fit(learn)
    learn.training_run.checkpoint.write_bytes(learn.training_run.checkpoint.read_bytes()[:5000])
    again = genre_learner(
        image_dataloaders(few), "resnet18", "smoke-test", pretrained=False, seed=1
    )
    with again.no_bar(), again.no_logging(), pytest.warns(match="checkpoint .* is damaged"):
        fit(again)
    for name, weight in learn.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], weight, atol=0, rtol=0)


@pytest.mark.slow
def test_a_frozen_body_runs_once_and_its_head_is_trained(images, tmp_path, monkeypatch):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:3])]
    learn = genre_learner(image_dataloaders(few), "resnet18", "texture", pretrained=False)
    as_if_pretrained(learn)
    before = {name: value.clone() for name, value in learn.model[0].state_dict().items()}
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    for name, value in learn.model[0].state_dict().items():
        torch.testing.assert_close(value, before[name])
    # The head that was trained on cached features predicts the same from images.
    kept = predict_tracks(learn, few).filter(like="p_")
    learn.training_run = replace(learn.training_run, weights="none (from scratch)")
    torch.testing.assert_close(
        torch.tensor(kept.to_numpy()),
        torch.tensor(predict_tracks(learn, few).filter(like="p_").to_numpy()),
        atol=1e-4,
        rtol=0,
    )
    train = few[few["split"] == "train"]
    right = predict_tracks(learn, train)["predicted"] == train["genre"].to_numpy()
    assert right.mean() > 0.9
    # The second time the body does not run. A new image is added to the cache.
    used = []
    hook = learn.model[0].register_forward_hook(lambda *call: used.append(len(call[1][0])))
    again = extract_features(learn, few)
    assert used == []
    more = extract_features(learn, images.head(len(few) + 1))
    hook.remove()
    assert 0 < sum(used) <= len(images)
    np.testing.assert_array_equal(again[0], more[list(images.index).index(few.index[0])])
    assert len(list(tmp_path.rglob("rows.bin"))) == 1


@pytest.mark.slow
def test_damaged_cached_features_are_computed_again_and_two_writers_lose_none(
    images, tmp_path, monkeypatch
):
    monkeypatch.setattr("melgenre.training.cached_features.SAVED_TOGETHER", 2)
    few = images.groupby("genre").head(2).head(6)
    learn = genre_learner(image_dataloaders(images), "resnet18", "texture", pretrained=False)
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path / "alone"))
    expected = extract_features(learn, few)
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path / "both"))
    with ThreadPoolExecutor(2) as pool:
        both = list(
            pool.map(lambda half: extract_features(learn, half), [few.iloc[:3], few.iloc[3:]])
        )
    np.testing.assert_array_equal(np.concatenate(both), expected)
    for folder in ("alone", "both"):
        (file,) = (tmp_path / folder).rglob("rows.bin")
        assert file.stat().st_size == expected.nbytes
    content = file.read_bytes()
    for damaged in (content[:100], b"", content[:-1000] + bytes(1000)):
        file.write_bytes(damaged)
        with pytest.warns(MelgenreWarning, match="damaged .* computed again"):
            again = extract_features(learn, few)
        np.testing.assert_array_equal(again, expected)


@pytest.mark.slow
def test_a_head_has_the_same_weights_with_any_number_of_threads(images, tmp_path, monkeypatch):
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:3])]
    states, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        monkeypatch.setenv("MELGENRE_HOME", str(tmp_path / str(threads)))
        torch.set_num_threads(threads)
        try:
            learn = genre_learner(image_dataloaders(few), "resnet18", "texture", pretrained=False)
            as_if_pretrained(learn)
            with learn.no_bar(), learn.no_logging():
                fit(learn)
            assert torch.get_num_threads() == threads
            assert learn.training_run.threads == 1
        finally:
            torch.set_num_threads(before)
        states.append(learn.model.state_dict())
    for state in states[1:]:
        for name, weight in states[0].items():
            torch.testing.assert_close(state[name], weight, atol=0, rtol=0)


@pytest.mark.slow
def test_texture_features_hardly_depend_on_a_shift_in_time():
    torch.manual_seed(0)
    body = build_network("resnet18", 10, "texture")[0].eval()
    loop = torch.rand(1, 3, 128, 32).repeat(1, 1, 1, 12)
    with torch.no_grad():
        here, later, other = (
            body(x) for x in (loop, loop.roll(16, dims=3), torch.rand(1, 3, 128, 384))
        )
    assert (here - later).norm() < 0.2 * (here - other).norm()


@pytest.mark.slow
def test_a_network_that_cannot_be_cut_raises_an_error():
    for name in ("swin_t", "vit_b_16"):
        with pytest.raises(ArchitectureError, match="cannot be cut for textures.*'fine-tune'"):
            build_network(name, 10, "texture")


@pytest.mark.slow
def test_the_classifier_rebuilds_a_texture_network(images, tmp_path, write_song):
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:3])]
    learn = genre_learner(image_dataloaders(few), "resnet18", "texture", pretrained=False)
    predictions = predict_tracks(learn, held_out(few))
    folder = export_learner(run_of(learn, predictions), tmp_path / "small")
    loaded, _ = load_exported(folder)
    by_fastai = predict_tracks(loaded, predictions[list(few)]).filter(like="p_").to_numpy()
    images = np.stack([Image.open(file) for file in predictions["image"]])
    for backend in ("torch", "onnx"):
        classifier = GenreClassifier.load(folder, backend=backend)
        probabilities, _ = classifier.predict_images(list(images))
        np.testing.assert_allclose(probabilities, by_fastai, atol=1e-4)
    song = write_song(tmp_path / "song.wav", seconds=31)
    assert sum(classifier.predict(song).values()) == pytest.approx(1, abs=1e-5)


def test_preloaded_images_give_the_same_batches(images):
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:3])]
    for from_files in image_dataloaders(few).loaders:
        once = _preload(from_files)
        once.rng, from_files.rng = random.Random(3), random.Random(3)
        batches = list(zip(once, from_files, strict=True))
        for (x, y), (same_x, same_y) in batches:
            torch.testing.assert_close(x, same_x)
            assert y.tolist() == same_y.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["texture", "frozen-head"])
def test_training_is_the_same_with_new_and_with_cached_features(
    images, tmp_path, monkeypatch, recipe
):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:3])]
    heads = []
    for _ in range(2):
        learn = genre_learner(image_dataloaders(few), "resnet18", recipe, pretrained=False)
        as_if_pretrained(learn)
        with learn.no_bar(), learn.no_logging():
            fit(learn)
        heads.append(learn.model[1].state_dict())
    for name, tensor in heads[0].items():
        torch.testing.assert_close(tensor, heads[1][name], atol=0, rtol=0)
