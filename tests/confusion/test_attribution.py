"""Attribution maps add up to the change of the logits; each clip is its own nearest neighbour."""

import numpy as np
import pytest
import torch
from PIL import Image

from melgenre.confusion.attribution import STEPS, attribution_maps, embed_images, nearest
from melgenre.networks import BUILT_IN
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.exported import load_exported
from melgenre.training.fit import fit
from melgenre.training.learner import genre_learner


@pytest.mark.slow
def test_the_maps_add_up_to_the_difference_of_the_logits(learner, images):
    image = images["image"].iloc[0]
    genres = list(learner.dls.vocab)[:2]
    silence = Image.fromarray(np.zeros((128, 387), dtype=np.uint8)).convert("RGB")
    batch = learner.dls.test_dl([image, silence], num_workers=0).one_batch()[0]
    with torch.no_grad():
        logits = learner.model.eval()(batch)[:, :2]
    change = (logits[0] - logits[1]).numpy()
    many, few = (attribution_maps(learner, image, genres, steps=n) for n in (32, STEPS))
    assert many.shape == few.shape == (2, 128, 387)
    largest = float(np.abs(change).max())
    assert many.sum(axis=(1, 2)) == pytest.approx(change, abs=0.05 * largest + 0.05)
    assert few.sum(axis=(1, 2)) == pytest.approx(change, abs=0.3 * largest + 0.3)


@pytest.mark.slow
def test_the_few_steps_of_the_browser_give_nearly_the_map_of_many_steps(images):
    # Of a network without pretrained weights, the maps change more with the steps.
    learn = genre_learner(image_dataloaders(images), BUILT_IN, "texture")
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    image, genres = images["image"].iloc[0], list(learn.dls.vocab)[:2]
    many, few = (attribution_maps(learn, image, genres, steps=n) for n in (32, STEPS))
    for of_few, of_many in zip(few, many, strict=True):
        assert np.corrcoef(of_few.ravel(), of_many.ravel())[0, 1] > 0.9


@pytest.mark.slow
def test_the_map_of_a_genre_does_not_depend_on_other_genres(learner, images):
    image, genres = images["image"].iloc[0], list(learner.dls.vocab)[:2]
    together = attribution_maps(learner, image, genres, steps=2)
    for genre, of_genre in zip(genres, together, strict=True):
        alone = attribution_maps(learner, image, [genre], steps=2)[0]
        assert of_genre == pytest.approx(alone, abs=1e-4 * float(np.abs(alone).max()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_the_model_may_be_on_the_gpu(learner, images):
    image, genres = images["image"].iloc[0], list(learner.dls.vocab)[:2]
    on_cpu = attribution_maps(learner, image, genres), embed_images(learner, images.head(2))
    original = next(learner.model.parameters()).device
    learner.model.cuda()
    try:
        on_gpu = (
            attribution_maps(learner, image, genres),
            embed_images(learner, images.head(2)),
        )
    finally:
        learner.model.to(original)
    assert np.corrcoef(on_cpu[0].ravel(), on_gpu[0].ravel())[0, 1] > 0.99
    assert on_gpu[1].device.type == "cpu"
    assert on_gpu[1].numpy() == pytest.approx(on_cpu[1].numpy(), abs=1e-2)


@pytest.mark.slow
def test_black_pixels_have_no_attribution(learner, images, tmp_path):
    pixels = np.array(Image.open(images["image"].iloc[0]))
    pixels[:64] = 0  # the upper bands are silent
    Image.fromarray(pixels).save(tmp_path / "low.png")
    maps = attribution_maps(learner, tmp_path / "low.png", [learner.dls.vocab[0]])
    assert not maps[0, :64].any()
    assert maps[0, 64:].any()


@pytest.mark.slow
def test_the_nearest_clip_is_the_clip_itself(learner, exported, images):
    tracks = images.head(8)
    loaded, _ = load_exported(exported)
    for learn in (learner, loaded):
        embedded = embed_images(learn, tracks)
        assert embedded.norm(dim=1).numpy() == pytest.approx(1, abs=1e-4)
        rows, similarities = zip(*nearest(embedded[5], embedded, n=3), strict=True)
        assert rows[0] == 5
        assert similarities[0] == pytest.approx(1, abs=1e-4)
        assert list(similarities) == sorted(similarities, reverse=True)
