"""Transfer learning from an exported model to other genres."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import run_of

from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.model_folder import ModelError, write_config
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.export import export_learner
from melgenre.training.exported import load_exported
from melgenre.training.fit import fit
from melgenre.training.learner import predict_tracks
from melgenre.training.transfer import transfer_learner


@pytest.mark.slow
def test_with_the_same_genres_it_starts_with_the_predictions_of_the_model(learner, exported):
    items = learner.dls.items.assign(split="train")
    items.iloc[::2, items.columns.get_loc("split")] = "test"
    start = transfer_learner(image_dataloaders(items), exported)
    known = predict_tracks(load_exported(exported)[0], items).filter(like="p_")
    np.testing.assert_allclose(predict_tracks(start, items).filter(like="p_"), known, atol=1e-4)


@pytest.mark.slow
def test_with_other_genres_all_but_the_last_layer_is_kept(learner, exported, images, tmp_path):
    known = list(learner.dls.vocab)
    others = sorted(set(images["genre"]) - set(known))[:2]
    mine = images[images["genre"].isin([known[1], *others])].reset_index(drop=True)
    learn = transfer_learner(image_dataloaders(mine), exported, seed=1)
    *layers, last = learn.model.state_dict().items()
    model = load_exported(exported)[0].model.state_dict()
    for name, tensor in layers:
        torch.testing.assert_close(tensor, model[name])
    of_model = model[last[0]]
    assert last[1].shape == (3, of_model.shape[1])
    torch.testing.assert_close(last[1][learn.dls.vocab.o2i[known[1]]], of_model[1])
    assert not torch.equal(last[1][learn.dls.vocab.o2i[others[0]]], of_model[0])

    with learn.no_bar(), learn.no_logging():
        fit(learn)
    predictions = predict_tracks(learn, learn.dls.valid_ds.items.reset_index(drop=True))
    assert learn.training_run.weights.startswith(
        "none (from scratch), then 8 tracks of synthetic-made-up"
    )
    folder = export_learner(run_of(learn, predictions), tmp_path / "mine")
    answer = GenreClassifier.load(folder).predict(mine["path"].iloc[0])
    assert set(answer) == {known[1], *others}


@pytest.mark.slow
def test_a_model_that_cannot_be_used_for_transfer_gets_a_sentence(exported, images, tmp_path):
    dls = image_dataloaders(images)
    with pytest.raises(ModelError, match="No exported model in .*none: there is no such folder"):
        transfer_learner(dls, tmp_path / "none")
    broken = shutil.copytree(exported, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\x08")
    with pytest.raises(ModelError, match="broken is damaged"):
        transfer_learner(dls, broken)
    config = json.loads((broken / "config.json").read_text())
    write_config(broken, config)
    with pytest.raises(ModelError, match="broken is damaged"):
        transfer_learner(dls, broken)
    config["training"]["recipe"] = "somebody's"
    write_config(broken, config)
    with pytest.raises(ModelError, match='recipe "somebody\'s" that is unknown'):
        transfer_learner(dls, broken)
