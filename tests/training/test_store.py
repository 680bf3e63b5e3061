"""Features on disk, and heads that are trained on them block by block."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from melgenre.errors import MelgenreError, MelgenreWarning
from melgenre.heads import SignedRoot
from melgenre.training import block_discriminant, discriminant, feature_store
from melgenre.training.discriminant import fit_discriminant
from melgenre.training.feature_store import FeatureStore, StoredFeatures, feature_blocks
from melgenre.training.recipes import RecipeError


def keys_of(numbers):
    return np.array([int(number).to_bytes(16, "big") for number in numbers], "S16")


def rows_of(numbers, d=3):
    return np.array([[number * d + i for i in range(d)] for number in numbers], np.float32)


def filled(folder, numbers, d=3):
    store = FeatureStore(folder)
    store.append(keys_of(numbers), rows_of(numbers, d))
    return store


@settings(max_examples=20)
@given(batches=st.lists(st.lists(st.integers(0, 40), min_size=1), min_size=1, max_size=5))
def test_what_was_appended_is_found(tmp_path_factory, batches):
    store = FeatureStore(tmp_path_factory.mktemp("store") / "body")
    assert (store.find(keys_of([1, 2])) == -1).all()
    for numbers in batches:
        store.append(keys_of(numbers), rows_of(numbers))
    stored = sorted(set().union(*batches))
    features = StoredFeatures([(store, store.find_intact(keys_of(stored)))])
    np.testing.assert_array_equal(features, rows_of(stored))
    np.testing.assert_array_equal(features[[0, -1]], rows_of([stored[0], stored[-1]]))
    assert (store.find(keys_of(range(41, 50))) == -1).all()


@pytest.mark.parametrize("name", ["rows.bin", "keys.bin"])
def test_a_writer_killed_at_any_byte_loses_only_its_last_rows(tmp_path, name):
    store = filled(tmp_path / "body", range(3))
    sizes = [file.stat().st_size for file in (store.rows, store.records)]
    store.append(keys_of([7, 8]), rows_of([7, 8]))
    wholes = [file.read_bytes() for file in (store.rows, store.records)]
    # Rows are written before records.
    for cut in range(sizes[name == "keys.bin"], len(wholes[name == "keys.bin"])):
        store.rows.write_bytes(wholes[0][:cut] if name == "rows.bin" else wholes[0])
        store.records.write_bytes(wholes[1][: sizes[1] if name == "rows.bin" else cut])
        assert (store.find_intact(keys_of(range(3))) == [0, 1, 2]).all()
        missing = [n for n in (7, 8) if store.find(keys_of([n]))[0] < 0]
        store.append(keys_of(missing), rows_of(missing))
        assert [store.rows.read_bytes(), store.records.read_bytes()] == wholes


@pytest.mark.parametrize("damage", ["a byte", "cut", "empty", "shape"])
def test_damaged_rows_are_not_used(tmp_path, damage):
    store, keys = filled(tmp_path / "body", range(4)), keys_of(range(4))
    content = bytearray(store.rows.read_bytes())
    if damage == "a byte":
        content[14] ^= 1
    store.rows.write_bytes({"cut": content[:40], "empty": b""}.get(damage, content))
    if damage == "shape":
        (store.folder / "shape.json").write_text("{")
    with pytest.warns(MelgenreWarning, match="in body are damaged and are computed again"):
        found = store.find_intact(keys)
    expected = {"a byte": [1], "cut": [3]}.get(damage, [0, 1, 2, 3])
    assert np.flatnonzero(found < 0).tolist() == expected
    with pytest.warns(MelgenreWarning) if damage != "a byte" else pytest.MonkeyPatch.context():
        store.append(keys[expected], rows_of(expected))
    np.testing.assert_array_equal(
        StoredFeatures([(store, store.find_intact(keys))]), rows_of(range(4))
    )


def test_two_bodies_side_by_side_are_the_columns_of_both(tmp_path):
    one, two = filled(tmp_path / "one", range(5), d=2), filled(tmp_path / "two", [4, 3, 2, 1, 0])
    keys = keys_of([3, 0, 3])
    both = StoredFeatures([(store, store.find(keys)) for store in (one, two)])
    assert both.shape == (3, 5) and both.nbytes == 60
    expected = np.hstack([rows_of([3, 0, 3], d=2), rows_of([3, 0, 3])])
    np.testing.assert_array_equal(both, expected)
    np.testing.assert_array_equal(both[1:], expected[1:])


def test_blocks_are_all_rows_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "BLOCK_BYTES", 30)
    store = filled(tmp_path / "body", range(11))
    features = StoredFeatures([(store, np.arange(11)[::-1])])
    blocks = list(feature_blocks(features))
    assert [len(block) for block in blocks] == [2] * 5 + [1]
    np.testing.assert_array_equal(torch.cat(blocks), rows_of(range(11))[::-1])
    (whole,) = feature_blocks(rows_of(range(11)))
    assert len(whole) == 11


def linear_head(d, n_genres):
    return nn.Sequential(SignedRoot(), nn.BatchNorm1d(d), nn.Linear(d, n_genres))


@pytest.mark.parametrize(
    ("d", "n_genres", "clips"), [(30, 4, 200), (600, 3, 500), (50, 2, 40), (5, 3, 7)]
)
def test_the_discriminant_by_blocks_is_that_of_scikit_learn(
    tmp_path, monkeypatch, d, n_genres, clips
):
    monkeypatch.setattr(block_discriminant, "BLOCK_BYTES", 4 * d * 13)
    rng = np.random.default_rng(d)
    genres = np.concatenate([np.arange(n_genres), rng.integers(0, n_genres, clips - n_genres)])
    x = (rng.normal(size=(clips, d)) * rng.uniform(0.1, 9, d) + genres[:, None]).astype(np.float32)
    x[:, 0] = 2.5  # a constant feature
    store = FeatureStore(tmp_path / "body")
    store.append(keys_of(range(clips)), x)
    in_memory, by_blocks = linear_head(d, n_genres), linear_head(d, n_genres)
    labels = torch.tensor(genres)
    fit_discriminant(in_memory, torch.tensor(x), labels, shrinkage=0.2)
    fit_discriminant(by_blocks, StoredFeatures([(store, np.arange(clips))]), labels, shrinkage=0.2)
    with torch.no_grad():
        expected, found = (
            head.eval()(torch.tensor(x)).softmax(dim=1) for head in (in_memory, by_blocks)
        )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    for ours, theirs in zip(by_blocks[1].buffers(), in_memory[1].buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)
    if n_genres > 2:  # of two genres, scikit-learn's logits differ from ours by a constant
        torch.testing.assert_close(by_blocks[2].weight, in_memory[2].weight, atol=1e-5, rtol=1e-4)


def test_many_features_in_memory_are_fitted_as_those_on_disk(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(90, 6)).astype(np.float32), torch.arange(90) % 3
    store = FeatureStore(tmp_path / "body")
    store.append(keys_of(range(90)), x)
    on_disk, in_memory = linear_head(6, 3), linear_head(6, 3)
    fit_discriminant(on_disk, StoredFeatures([(store, np.arange(90))]), labels, shrinkage=0.2)
    monkeypatch.setattr(discriminant, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(discriminant, "_fit", None)  # in float64, with ten copies
    fit_discriminant(in_memory, torch.tensor(x), labels, shrinkage=0.2)
    for ours, theirs in zip(in_memory.parameters(), on_disk.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("rare", [9, 1])
def test_the_discriminants_of_several_genres_by_blocks_are_those_of_scikit_learn(
    tmp_path, monkeypatch, rare
):
    monkeypatch.setattr(block_discriminant, "BLOCK_BYTES", 4 * 30 * 13)
    rng = np.random.default_rng(0)
    several = rng.random((150, 4)) < [0.5, 0.3, 0.2, 0]
    several[:rare, 3] = True  # a single clip is in no training part of its fold
    x = (rng.normal(size=(150, 30)) + several @ rng.normal(size=(4, 30))).astype(np.float32)
    store = FeatureStore(tmp_path / "body")
    store.append(keys_of(range(150)), x)
    stored, genres = StoredFeatures([(store, np.arange(150))]), torch.tensor(several)
    in_memory, by_blocks = linear_head(30, 4), linear_head(30, 4)
    fit_discriminant(in_memory, torch.tensor(x), genres, shrinkage=0.2)
    fit_discriminant(by_blocks, stored, genres, shrinkage=0.2)
    for ours, theirs in zip(
        by_blocks.state_dict().values(), in_memory.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    with pytest.raises(RecipeError, match="Choose the recipe 'discriminant'"):
        fit_discriminant(by_blocks, stored, genres, shrinkage=0.2, balanced=True)


def test_too_many_features_for_a_covariance_get_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(block_discriminant, "MOST_FEATURES", 2)
    features = StoredFeatures([(filled(tmp_path / "body", range(9)), np.arange(9))])
    with pytest.raises(MelgenreError, match="with 3 features each .* recipe 'texture'"):
        fit_discriminant(linear_head(3, 2), features, torch.arange(9) % 2, shrinkage=0.2)
