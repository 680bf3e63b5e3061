"""The map of a collection: similar songs are neighbours, and a click plays them."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from melgenre.inference.embeddings import EmbeddingError, Embeddings
from melgenre.inference.music_map import map_positions, play_map, plot_map

ODD = "<img src=x onerror=alert(1)>"


def three_groups(per_group=8):
    """Embeddings of songs in three directions, with a genre for each."""
    rng = np.random.default_rng(0)
    vectors = np.repeat(np.eye(20)[:3], per_group, axis=0) * rng.uniform(1, 9, (3 * per_group, 1))
    vectors = (vectors + rng.normal(0, 0.05, vectors.shape)).astype(np.float32)
    songs = [f"song {number}.mp3" for number in range(len(vectors))]
    genres = np.repeat(["jazz", ODD, "рок"], per_group)
    return Embeddings(songs, vectors, [""] * len(songs), "x"), genres


def test_the_neighbours_on_the_map_are_those_of_the_embeddings():
    embeddings, genres = three_groups()
    positions = map_positions(embeddings.vectors)
    assert positions.shape == (24, 2)
    assert (positions.min(axis=0) == 0).all() and np.allclose(positions.max(axis=0), 1)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (genres[distances.argmin(axis=1)] == genres).all()
    np.testing.assert_array_equal(map_positions(embeddings.vectors), positions)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 12])
def test_a_few_songs_have_a_map(n):
    vectors = np.random.default_rng(0).normal(size=(n, 3))
    positions = map_positions(vectors)
    assert positions.shape == (n, 2) and np.isfinite(positions).all()
    assert len({tuple(one) for one in positions}) == n


def test_the_plot_has_one_colour_per_genre():
    embeddings, genres = three_groups()
    ax = plot_map(embeddings, genres)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == sorted(set(genres))
    assert sum(len(points.get_offsets()) for points in ax.collections) == 24
    assert len({tuple(points.get_facecolor()[0]) for points in ax.collections}) == 3
    many = [f"genre {number}" for number in range(24)]
    ax = plot_map(embeddings, many)
    assert len({tuple(points.get_facecolor()[0]) for points in ax.collections}) == 24


def test_what_cannot_be_mapped_raises_a_sentence():
    embeddings, genres = three_groups()
    with pytest.raises(EmbeddingError, match="There are 24 songs and 23 genres"):
        plot_map(embeddings, genres[1:])
    with pytest.raises(EmbeddingError, match="There is no song to map"):
        play_map(Embeddings([], np.zeros((0, 0), np.float32), [], "x"), [])


@pytest.fixture
def music_map(tmp_path, write_song):
    embeddings, genres = three_groups(per_group=2)
    for name in embeddings.songs[:4]:
        write_song(tmp_path / "music" / name, seconds=6)
    (tmp_path / "music" / embeddings.songs[4]).write_text("no song")
    return play_map(embeddings, genres, tmp_path / "music", seconds=2)


def test_a_map_is_small_and_contains_no_path_of_this_machine(music_map, tmp_path):
    assert str(tmp_path) not in music_map.page
    assert len(music_map.page) < 4 * 20_000 + 10_000
    assert len(re.findall('"mp3": "[^"]', music_map.page)) == 4


def test_the_number_of_sounds_is_limited(tmp_path, write_song):
    embeddings, genres = three_groups(per_group=2)
    for name in embeddings.songs:
        write_song(tmp_path / name, seconds=2)
    page = play_map(embeddings, genres, tmp_path, sounds=3).page
    assert len(re.findall('"mp3": "[^"]', page)) == 3
    assert page.count('"mp3": ""') == 3


@pytest.mark.browser
@pytest.mark.parametrize("shown", ["as a file", "in a notebook"])
def test_a_song_on_the_map_is_named_and_played(music_map, tmp_path, page, shown):
    if shown == "as a file":
        page.goto(music_map.save(tmp_path / "map.html").as_uri())
        frame = page.main_frame
    else:
        (tmp_path / "notebook.html").write_text(
            f"<meta charset=utf-8><p>output:</p>{music_map._repr_html_()}", encoding="utf-8"
        )
        page.goto((tmp_path / "notebook.html").as_uri())
        frame = page.frames[1]
    expect(frame.locator("circle")).to_have_count(6)
    expect(frame.locator("circle[role=button]")).to_have_count(4)
    status, audio = frame.locator("#status"), frame.locator("audio")
    expect(status).to_contain_text("Point at a song")
    first = frame.get_by_role("button", name="song 0.mp3, jazz")
    third = frame.get_by_role("button", name=f"song 2.mp3, {ODD}")
    first.hover()
    expect(status).to_have_text("song 0.mp3, jazz")
    first.click()
    expect(first).to_have_class("playing")
    frame.wait_for_function("() => document.querySelector('audio').currentTime > 0.2")
    assert 1.9 < audio.evaluate("audio => audio.duration") < 2.3
    third.click()  # stops the first
    expect(third).to_have_class("playing")
    expect(first).not_to_have_class(re.compile("playing"))
    third.click()
    assert audio.evaluate("audio => audio.paused")
    first.focus()
    page.keyboard.press("Enter")
    expect(first).to_have_class("playing")
    expect(first).not_to_have_class(re.compile("playing"))  # its two seconds have ended
    frame.locator("circle:not([role])").first.hover()
    expect(status).to_have_text("song 4.mp3, рок (no sound here)")
    # Names are text and never markup.
    expect(frame.locator("#legend span")).to_have_count(3)
    assert frame.locator("img").count() == 0
