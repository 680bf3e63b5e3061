"""Training and prediction from shards are those from single files."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_of

from melgenre.confusion.attribution import embed_images
from melgenre.data import image_files
from melgenre.data.mel_settings import ImageError, MelSettings
from melgenre.errors import MelgenreWarning
from melgenre.features import shard_writer
from melgenre.features.shards import extract_shards
from melgenre.networks import BUILT_IN
from melgenre.training import cached_features, feature_store, fit as fitting, image_loader
from melgenre.training.cached_features import extract_features
from melgenre.training.calibration import logits_and_scores
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.export import export_learner
from melgenre.training.exported import load_exported
from melgenre.training.feature_store import StoredFeatures
from melgenre.training.fit import fit
from melgenre.training.image_loader import image_batch
from melgenre.training.learner import genre_learner, predict_tracks


@pytest.fixture(scope="module")
def pair(images, tmp_path_factory):
    """The same tracks of three genres in the same order, with single images and with shards."""
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:3])]
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writer, "GROUP_ROWS", 4)
        shards = extract_shards(few, folder, progress=False)
    files = few.set_index("track_id").loc[shards["track_id"]].reset_index()
    return files, shards


def tensors(learn):
    return list(learn.model.state_dict().values())


def test_batches_are_those_of_files_and_each_row_group_is_read_once(pair, monkeypatch):
    files, shards = (image_dataloaders(tracks) for tracks in pair)
    for one, other in zip(files.valid, shards.valid, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    by_track = {}
    for row in range(files.train.n):
        by_track[files.train_ds.items["track_id"].iloc[row]] = files.train.do_item(row)
    for row in range(shards.train.n):
        image, genre = shards.train.do_item(row)
        expected = by_track[shards.train_ds.items["track_id"].iloc[row]]
        assert torch.equal(image, expected[0]) and genre == expected[1]
    read = []
    image_files._row_group.cache_clear()
    open_shard = image_files.open_shard
    monkeypatch.setattr(
        image_files, "open_shard", lambda *of, **more: read.append(of) or open_shard(*of, **more)
    )
    orders = []
    for _ in range(2):
        orders.append(torch.cat([genres for _, genres in shards.train]).tolist())
        assert len(orders[-1]) == shards.train.n - shards.train.n % shards.train.bs
    assert orders[0] != orders[1]
    assert len(read) <= 3  # row groups of 4 of 12 tracks; later epochs find them in memory


def test_blocks_are_shuffled_and_each_row_is_in_the_epoch_once(pair, monkeypatch):
    monkeypatch.setattr(image_loader, "GROUP_ROWS", 10)
    monkeypatch.setattr(image_loader, "GROUPS_IN_MEMORY", 3)
    dl = image_dataloaders(pair[1]).train
    many = [f"/shards/images-{n // 100:05}-of-00004.parquet#{n % 100}" for n in range(400)]
    dl.dataset.tls[0].items = pd.DataFrame({"image": many})
    rows = dl.shuffle_fn(list(range(400)))
    assert sorted(rows) == list(range(400))
    assert rows != dl.shuffle_fn(list(range(400)))
    groups = np.array(rows) // 10
    for start in range(0, 390, 30):  # images of three row groups at a time, mixed
        assert len(set(groups[start : start + 30])) == 3
    assert np.abs(np.diff(groups[:30])).astype(bool).sum() > 8
    assert set(groups[:30]) != {0, 1, 2}


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "on_disk"), [("discriminant", False), ("texture", True)])
def test_a_head_on_shards_is_that_on_files(pair, tmp_path, monkeypatch, recipe, on_disk):
    learners = []
    for number, tracks in enumerate(pair):
        if number and on_disk:
            monkeypatch.setattr(cached_features, "MOST_IN_MEMORY", 0)
            monkeypatch.setattr(feature_store, "BLOCK_BYTES", 50_000)
        monkeypatch.setenv("MELGENRE_HOME", str(tmp_path / str(number)))
        learners.append(genre_learner(image_dataloaders(tracks), BUILT_IN, recipe))
        with learners[-1].no_bar(), learners[-1].no_logging():
            fit(learners[-1])
    features = extract_features(learners[1], pair[1])
    assert isinstance(features, StoredFeatures if on_disk else np.ndarray)
    for one, other in zip(*map(tensors, learners), strict=True):
        assert torch.equal(one, other)
    both = list(zip(learners, pair, strict=True))
    one, other = (predict_tracks(learn, tracks).filter(like="p_") for learn, tracks in both)
    np.testing.assert_allclose(one, other, atol=1e-4)
    one, other = (logits_and_scores(learn, tracks) for learn, tracks in both)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(*(embed_images(learn, tracks) for learn, tracks in both))
    one, other = (image_batch(learn, tracks["image"].iloc[0]) for learn, tracks in both)
    assert torch.equal(one, other)


@pytest.mark.slow
def test_all_layers_are_trained_on_a_stream_and_the_export_is_plain(pair, tmp_path, monkeypatch):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    monkeypatch.setattr(fitting, "MOST_PRELOADED", 0)
    monkeypatch.setattr(fitting, "_preload", None)
    learn = genre_learner(
        image_dataloaders(pair[1]), "squeezenet1_1", "smoke-test", pretrained=False
    )
    before = [tensor.clone() for tensor in tensors(learn)]
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    losses = [float(epoch[0]) for epoch in learn.recorder.values]
    assert losses[-1] < losses[0]
    assert not torch.equal(before[0], tensors(learn)[0])
    folder = export_learner(run_of(learn), tmp_path / "model")
    assert b"melgenre" not in (folder / "learner.pkl").read_bytes()
    again, _ = load_exported(folder)
    one, other = (predict_tracks(again, tracks).filter(like="p_") for tracks in pair)
    np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_the_features_in_memory(pair, tmp_path, monkeypatch):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    monkeypatch.setattr(cached_features, "SAVED_TOGETHER", 2)
    learn = genre_learner(image_dataloaders(pair[1]), BUILT_IN, "texture")
    few = pair[1].head(6)
    expected = extract_features(learn, few)
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path / "full"))
    extract_features(learn, few.head(2))
    write = feature_store._write_at

    def full(file, offset, array):
        if offset:
            raise OSError(28, "No space left on device")
        write(file, offset, array)

    monkeypatch.setattr(feature_store, "_write_at", full)
    with pytest.warns(MelgenreWarning, match="cannot be cached .No space left"):
        np.testing.assert_array_equal(extract_features(learn, few), expected)


def test_shards_of_other_settings_are_rejected(pair, tmp_path):
    settings = replace(MelSettings(), hop_length=512)
    other = extract_shards(
        pair[0].assign(image=None).head(8), tmp_path, settings=settings, progress=False
    )
    both = pd.concat([pair[1], other.assign(split="train")])
    with pytest.raises(ImageError, match="was made with other settings"):
        image_dataloaders(both)
