import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melgenre.data.collection import find_tracks
from melgenre.data.duplicates import find_duplicates
from melgenre.data.gtzan_splits import artist_folds
from melgenre.data.leaks import find_leaks


@pytest.fixture
def five(tmp_path):
    """Five images: 0 and 3 are of the same recording, 3 with noise and another level."""
    rng = np.random.default_rng(0)
    images = [rng.uniform(0, 200, (128, 387)) for _ in range(5)]
    images[3] = 0.8 * images[0] + 20 + rng.normal(0, 10, (128, 387))
    files = []
    for number, image in enumerate(images):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(files[-1])
    return pd.DataFrame({"track_id": list("abcde"), "image": [str(file) for file in files]})


def test_the_same_recording_gets_the_same_id(five):
    assert find_duplicates(five)["recording_id"].tolist() == ["a", "b", "c", "a", "e"]


def test_duplicates_do_not_depend_on_the_order_of_tracks(five):
    turned = find_duplicates(five.iloc[::-1])
    assert {"a", "d"} in turned.groupby("recording_id")["track_id"].agg(set).tolist()


def test_silent_images_are_no_duplicates(five, tmp_path):
    for name in ("x", "y"):
        Image.new("L", (387, 128)).save(tmp_path / f"{name}.png")
    silent = pd.DataFrame({"track_id": ["x", "y"]})
    silent["image"] = [str(tmp_path / f"{name}.png") for name in "xy"]
    assert find_duplicates(silent)["recording_id"].tolist() == ["x", "y"]


@pytest.mark.slow
def test_the_duplicates_of_gtzan_are_found(gtzan):
    tracks = find_duplicates(find_tracks(gtzan).dropna(subset="image"))
    same = tracks[tracks["recording_id"].duplicated(keep=False)].groupby("recording_id")["track_id"]
    pairs = {tuple(members) for members in same.agg(sorted)}
    # The same bytes, within one genre and in two genres.
    assert ("metal.00040", "metal.00061") in pairs
    assert ("metal.00058", "rock.00016") in pairs
    assert 35 <= len(pairs) <= 40
    # One recording is under two artists, which the published folds separate.
    leaks = find_leaks(artist_folds(tracks))
    assert leaks["name"].tolist() == ["reggae.00003"]
