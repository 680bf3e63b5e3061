"""The confusion browser in Chromium: notebook 06 in two front ends, and the standalone page."""

import base64
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, run_of
from genre_tree import made_up_confusions
from playwright.sync_api import expect
from test_matrix import ODD, made_up_predictions

from melgenre.confusion.browser import ConfusionBrowser
from melgenre.data.annotations import load_annotations
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.export import export_learner
from melgenre.training.fit import fit
from melgenre.training.learner import genre_learner

pytestmark = [pytest.mark.browser, pytest.mark.alone]

TOKEN = "for-the-test-alone"
FRONT_ENDS = {"jupyterlab": "lab/tree", "notebook7": "notebooks"}  # where each opens a file
expect.set_options(timeout=90_000)  # a kernel on a busy machine


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, music, images):
    """A copy of what notebook 06 uses, with a small learner that was trained on made-up music."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "src").mkdir()
    (folder / "src" / "melgenre").symlink_to(ROOT / "src" / "melgenre")
    (folder / "notebooks").mkdir()
    name = "06_hear_the_confusions.ipynb"
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, folder / "notebooks" / name)
    learn = genre_learner(image_dataloaders(images), "resnet18", "smoke-test", pretrained=False)
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    export_learner(run_of(learn), folder / "models" / "resnet34")
    return folder


@pytest.fixture(scope="module")
def server(workshop, music):
    """The address of a Jupyter server in the workshop, for JupyterLab and for Notebook 7."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root",
               f"--port={port}", f"--IdentityProvider.token={TOKEN}",
               f"--ServerApp.root_dir={workshop}"]  # fmt: skip
    environment = {**os.environ, "MELGENRE_DATA": str(music),
                   "JUPYTER_CONFIG_DIR": str(workshop / ".jupyter")}  # fmt: skip
    with (workshop / "lab.log").open("w") as log:
        server = subprocess.Popen(command, cwd=workshop, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=1)
                break
            except OSError:
                assert server.poll() is None, (workshop / "lab.log").read_text()
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module", params=FRONT_ENDS)
def notebook(request, server, workshop, chromium):
    """Notebook 06 in each front end after all cells have run: its page and its file."""
    file = workshop / "notebooks" / f"{request.param}.ipynb"  # each has a kernel of its own
    shutil.copy(workshop / "notebooks" / "06_hear_the_confusions.ipynb", file)
    page = chromium.new_page(viewport={"width": 1500, "height": 1100})
    page.set_default_timeout(120_000)
    page.goto(f"{server}/{FRONT_ENDS[request.param]}/notebooks/{file.name}?token={TOKEN}")
    expect(page.locator(".jp-Toolbar-kernelName")).to_have_text(re.compile("Python 3"))
    expect(page.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", "idle")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    expect(page.locator(".melgenre-confusion table")).to_be_visible()
    # The last cell has run, so the kernel is idle from here on.
    expect(page.get_by_text(re.compile(r"confusions.html: [\d.]+ MB"))).to_be_visible()
    yield page, file
    page.close()


@pytest.mark.slow
def test_the_widget_of_notebook_06_works_by_mouse_and_keyboard(notebook, workshop):
    page, _ = notebook
    widget = page.locator(".melgenre-confusion")

    # A click on a cell lists its clips, as many as the cell counts.
    cell = next(cell for cell in widget.locator("td").all() if cell.inner_text().strip())
    label = cell.get_attribute("aria-label")
    cell.click()
    expect(widget.locator("h2")).to_have_text(label)
    expect(widget.locator("article")).to_have_count(min(8, int(label.split()[0])))
    genre, predicted = re.match(r"\d+ (\w+) clips? predicted as (\w+)", label).groups()
    for line in widget.locator("article .genres").all_inner_texts():
        assert line.startswith(f"true genre: {genre}, predicted genre: {predicted} (")

    # Play moves the cursor; a click into the image seeks; a second player stops the first.
    rows = widget.locator("th[role=rowheader]")
    rows.first.click()
    expect(widget.locator("article")).to_have_count(2)
    first, second = widget.locator("article").nth(0), widget.locator("article").nth(1)
    first.get_by_role("button", name=re.compile("Play")).click()
    clock = "audio => audio.currentTime"
    page.wait_for_function("() => document.querySelector('article audio').currentTime > 0.2")
    expect(first.locator(".cursor")).to_be_visible()
    image = first.locator(".spectrogram")
    box = image.bounding_box()
    image.click(position={"x": box["width"] / 2, "y": 20})
    page.wait_for_timeout(300)
    assert 14.5 < first.locator("audio").evaluate(clock) < 17
    second.get_by_role("button", name=re.compile("Play")).click()
    expect(second.get_by_role("button", name=re.compile("Pause"))).to_have_text("❚❚ Pause")
    expect(first.get_by_role("button", name=re.compile("Play"))).to_have_text("▶ Play")
    assert first.locator("audio").evaluate("audio => audio.paused")
    assert not second.locator("audio").evaluate("audio => audio.paused")

    # The attribution map and the nearest training clips.
    first.get_by_label("Attribution").check()
    expect(first.locator("img.attribution")).to_be_visible()
    expect(first.locator(".for-predicted")).to_be_visible()
    first.get_by_label("Nearest training clips").check()
    expect(first.locator(".neighbours article")).to_have_count(5)
    neighbour = first.locator(".neighbours article").first
    neighbour.get_by_role("button", name=re.compile("Play")).click()
    expect(neighbour.get_by_role("button")).to_have_text("❚❚ Pause")

    # Keys: the arrows move from a header into the matrix, and Enter selects a cell.
    rows.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    reached = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    expect(widget.locator("h2")).to_have_text(reached)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == reached

    # An annotation is in the CSV at once.
    rows.first.click()
    expect(widget.locator("article")).to_have_count(2)
    card = widget.locator("article").first
    name = card.locator("strong").first.inner_text()
    card.get_by_label("Label").select_option("mislabelled")
    card.get_by_label("Correct genre").select_option("bellrain")
    card.get_by_label("Comment").fill("sounds like <b>fog</b>")
    card.get_by_label("Comment").press("Enter")
    expect(card.locator(".annotation .status")).to_have_text("saved in annotations.csv")
    file = workshop / "data" / "annotations.csv"
    for _ in range(50):
        saved = load_annotations(file).set_index("track_id")
        if saved.loc[name, "comment"] == "sounds like <b>fog</b>":
            break
        page.wait_for_timeout(100)
    values = saved.loc[name, ["label", "correct_genre", "comment"]].tolist()
    assert values == ["mislabelled", "bellrain", "sounds like <b>fog</b>"]


@pytest.mark.slow
def test_keys_pressed_in_the_widget_stay_in_it(notebook):
    page, file = notebook
    sources = [(cell.cell_type, cell.source) for cell in nbformat.read(file, as_version=4).cells]
    widget = page.locator(".melgenre-confusion")
    first_cell = widget.locator("td").first
    focused = "document.activeElement.getAttribute('aria-label')"
    letters = ["d", "d", "x", "a", "b", "m", "y", "r", "c", "v", "z", "j", "Shift+M", "Escape"]

    # In the matrix: letters do nothing, arrows move the focus, and Enter shows the clips.
    first_cell.focus()
    for key in letters:
        page.keyboard.press(key)
    assert page.evaluate(focused) == first_cell.get_attribute("aria-label")
    for key in ("ArrowDown", "ArrowRight", "ArrowUp", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    row = widget.locator("th[role=rowheader]").first
    assert page.evaluate(focused) == row.get_attribute("aria-label")
    for key in ("Shift+Enter", "Control+Enter", "Alt+Enter", "Enter"):
        page.keyboard.press(key)
    expect(widget.locator("h2")).to_have_text(row.get_attribute("aria-label"))

    # In a card: the player, the checkboxes, the lists and the comment.
    card = widget.locator("article").first
    for part in (".spectrogram", "button", "input[type=checkbox]"):
        card.locator(part).first.focus()
        for key in letters:
            page.keyboard.press(key)
    label = card.get_by_label("Label")
    label.focus()
    page.keyboard.press("m")
    expect(label).to_have_value("mislabelled")
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "Correct genre"
    comment = card.get_by_label("Comment")
    comment.fill("")
    comment.press_sequentially("dd x a b")
    comment.press("Enter")
    expect(comment).to_have_value("dd x a b")

    # Shortcuts of the notebook that the widget does not use still work: Ctrl-S saves it unchanged.
    before = file.stat().st_mtime_ns
    page.keyboard.press("Control+s")
    after = None
    for _ in range(100):
        page.wait_for_timeout(100)
        # Jupyter empties the file before it writes it.
        with contextlib.suppress(nbformat.reader.NotJSONError):
            if file.stat().st_mtime_ns != before:
                after = nbformat.read(file, as_version=4).cells
                break
    assert after is not None
    assert [(cell.cell_type, cell.source) for cell in after] == sources
    assert page.locator(".jp-Notebook.jp-mod-editMode").count() == 0
    assert page.locator(".jp-Notebook .jp-Cell.jp-mod-active .melgenre-confusion").count() == 1


@pytest.mark.slow
def test_the_list_of_neighbours_does_not_move_the_annotation(notebook):
    page, _ = notebook
    widget = page.locator(".melgenre-confusion")
    widget.locator("th[role=rowheader]").nth(1).click()
    card = widget.locator("article").first
    label = card.get_by_label("Label")

    def place():
        """Within the widget: the notebook around it may scroll."""
        inner, outer = label.bounding_box(), widget.bounding_box()
        return inner["x"] - outer["x"], inner["y"] - outer["y"], inner["width"], inner["height"]

    before = pytest.approx(place())
    card.get_by_label("Nearest training clips").check()
    expect(card.locator(".neighbours article")).to_have_count(5)
    assert place() == before
    card.get_by_label("Attribution").check()
    expect(card.locator(".for-predicted")).to_be_visible()
    assert place() == before


def test_the_exported_page_opens_as_a_file_and_plays(images, tmp_path, page):
    genres = sorted(images["genre"].unique())
    table = images.assign(predicted=genres[0])
    for genre in genres:
        table[f"p_{genre}"] = 0.91 if genre == genres[0] else 0.01
    browser = ConfusionBrowser(table, annotations=tmp_path / "a.csv")
    file = browser.to_html(tmp_path / "confusions.html", clips_per_cell=1, seconds=4)
    page.goto(file.as_uri())
    page.locator("td").filter(has_text="4").nth(3).click()
    expect(page.locator("article")).to_have_count(1)
    page.get_by_role("button", name=re.compile("Play")).click()
    page.wait_for_function("() => document.querySelector('audio').currentTime > 0.2")
    # The sound is four seconds from the middle of thirty: the cursor starts there in the image.
    left = float(page.locator(".cursor").evaluate("cursor => cursor.style.left").rstrip("%"))
    assert 100 * 13 / 30 < left < 100 * 17 / 30
    page.get_by_label("Percentages of each row").check()
    expect(page.locator("td").filter(has_text="100")).to_have_count(10)
    expect(page.locator("p")).to_have_text(
        "This page contains 10 of 40 clips: up to 1 per cell, the most confident first."
    )


def test_the_play_button_shows_its_next_action(images, tmp_path, page):
    table = images.head(2).assign(predicted=images["genre"].iloc[0], p_a=0.9)
    browser = ConfusionBrowser(table, annotations=tmp_path / "a.csv")
    file = browser.to_html(tmp_path / "confusions.html", seconds=2)
    # The second clip's sound is damaged.
    before, key, after = file.read_text(encoding="utf-8").rpartition('"mp3": "')
    damaged = base64.b64encode(b"no sound").decode() + after[after.index('"') :]
    file.write_text(before + key + damaged, encoding="utf-8")
    page.goto(file.as_uri())
    page.locator("td").filter(has_text="2").click()
    first, second = page.locator("article").all()
    names = [card.locator("strong").inner_text() for card in (first, second)]

    def button(article, n, action):
        return article.get_by_role("button", name=f"{action} {names[n]}", exact=True)

    button(first, 0, "Play").click()
    expect(button(first, 0, "Pause")).to_have_text("❚❚ Pause")
    button(first, 0, "Pause").click()
    expect(button(first, 0, "Play")).to_have_text("▶ Play")
    button(first, 0, "Play").click()
    expect(button(first, 0, "Pause")).to_be_visible()
    expect(button(first, 0, "Play")).to_have_text("▶ Play")  # the sound has ended
    button(first, 0, "Play").click()
    expect(button(first, 0, "Pause")).to_be_visible()
    button(second, 1, "Play").click()
    expect(second.locator(".controls .status")).to_contain_text(
        "This browser cannot play the sound"
    )
    expect(button(second, 1, "Play")).to_have_text("▶ Play")
    expect(button(first, 0, "Play")).to_have_text("▶ Play")  # stopped by the second


def test_odd_names_are_text_and_never_markup(tmp_path, page):
    table = made_up_predictions(ODD).assign(
        track_id="<img src=x onerror=alert(1)>", artist_id="<script>x"
    )
    file = ConfusionBrowser(table, annotations=tmp_path / "a.csv").to_html(tmp_path / "odd.html")
    page.goto(file.as_uri())
    for genre in ODD:
        expect(page.get_by_role("rowheader", name=f"6 {genre} clips", exact=True)).to_be_visible()
    page.get_by_role("rowheader", name=f"6 {ODD[1]} clips", exact=True).click()
    expect(page.locator("article strong").first).to_have_text("<img src=x onerror=alert(1)>")
    assert page.locator("article b, article script, article [onerror]").count() == 0
    expect(page.locator("article").first).to_contain_text("No sound, only the image.")


def test_the_keys_move_through_a_large_matrix(tmp_path, page):
    genres = [f"genre {n:02}" for n in range(40)]
    table = made_up_predictions(genres, n=25)
    browser = ConfusionBrowser(table, annotations=tmp_path / "a.csv", clustered=False)
    page.goto(browser.to_html(tmp_path / "large.html").as_uri())
    expect(page.locator("td")).to_have_count(15 * 15)  # a part, which follows the keys
    page.locator("td[tabindex='0']").focus()
    for key in ("End", "PageDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    label = page.evaluate("document.activeElement.title")
    n = int(((table["genre"] == genres[-1]) & (table["predicted"] == genres[-1])).sum())
    assert label.startswith(f"{n or 'no'} genre 39 clip")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator("h2")).to_have_text("25 genre 39 clips")


@pytest.fixture(scope="module")
def page_of_161_genres(tmp_path_factory):
    """The page of a confusion matrix of 161 genres, and its genres in the order of the page."""
    folder = tmp_path_factory.mktemp("many")
    browser = ConfusionBrowser(made_up_confusions(), annotations=folder / "a.csv")
    return browser.to_html(folder / "many.html", clips_per_cell=1), browser.matrix["genres"]


@pytest.mark.slow
def test_161_genres_are_browsed_by_search_and_keys(page_of_161_genres, page):
    file, genres = page_of_161_genres
    page.goto(file.as_uri())
    active = "document.activeElement.getAttribute('aria-label')"
    rows = page.locator("th[role=rowheader]")
    expect(rows).to_have_count(15)

    # The search field finds a name or a part of it, in any case, and Enter goes to its cell.
    field = page.get_by_label("Find a genre")
    for typed, found in [("post-rock", "Post-Rock"), ("klezm", "Klezmer")]:
        field.fill(typed)
        field.press("Enter")
        assert page.evaluate(active).endswith(f"predicted as {found} (correct)")
    page.keyboard.press("Enter")
    expect(page.locator("h2")).to_have_text(page.evaluate(active))
    expect(page.locator("article")).to_have_count(1)
    field.fill("no such genre")
    field.press("Enter")
    assert page.evaluate(active) == "Find a genre"

    # In the overview the arrow keys move the part, + and - zoom it, and Enter goes to its cells.
    overview = page.get_by_role("group", name="Overview of 161 genres")
    overview.focus()
    page.keyboard.press("Home")
    expect(rows.first).to_contain_text(genres[0])
    page.keyboard.press("Shift+ArrowDown")
    first = page.locator("th[role=rowheader] span").first.inner_text()
    assert genres.index(first) == 15
    page.keyboard.press("-")
    expect(rows).to_have_count(20)
    for _ in range(5):
        page.keyboard.press("+")
    expect(rows).to_have_count(5)
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "TD"

    # In the grid, the part follows the arrow keys past its edge.
    page.keyboard.press("PageDown")
    assert page.evaluate(active).split(" ", 1)[1].startswith(genres[-1])
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator("h2")).to_have_text(f"20 {genres[-1]} clips")


@pytest.mark.slow
def test_161_genres_are_browsed_by_the_mouse(page_of_161_genres, page):
    file, genres = page_of_161_genres
    page.goto(file.as_uri())
    overview, frame = page.locator(".map"), page.locator(".frame")
    rows = page.locator("th[role=rowheader]")
    box = overview.bounding_box()

    def move(row, column):
        n = len(genres)
        x, y = (column + 0.5) / n * box["width"], (row + 0.5) / n * box["height"]
        page.mouse.move(box["x"] + x, box["y"] + y)

    # The pointer names the cell below it; a click shows it in the grid, and a drag moves on.
    move(80, 40)
    expect(page.locator(".live")).to_contain_text(f"{genres[80]} clips predicted as {genres[40]}")
    page.mouse.down()
    label = re.compile(f"{re.escape(genres[80])} clips? predicted as {re.escape(genres[40])}$")
    expect(page.get_by_role("gridcell", name=label)).to_be_visible()
    move(100, 40)
    page.mouse.up()
    expect(rows.nth(7)).to_contain_text(genres[100])
    share = frame.bounding_box()["width"] / box["width"]
    assert share == pytest.approx(15 / 161, abs=0.02)
    page.mouse.wheel(0, 100)
    expect(rows).to_have_count(19)
    for _ in range(9):
        page.mouse.wheel(0, -100)
    expect(rows).to_have_count(5)
    # The frame is where the pointer is.
    frame_box = frame.bounding_box()
    middle = frame_box["y"] + frame_box["height"] / 2
    assert middle == pytest.approx(box["y"] + box["height"] * 100.5 / 161, abs=4)


def test_ten_genres_have_no_overview(tmp_path, page):
    table = made_up_predictions([f"genre {n}" for n in range(10)])
    file = ConfusionBrowser(table, annotations=tmp_path / "a.csv").to_html(tmp_path / "ten.html")
    page.goto(file.as_uri())
    expect(page.locator("td")).to_have_count(100)
    assert page.locator("canvas, .overview").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_stand_out_from_their_cells(tmp_path, page, scheme):
    genres = [f"g{n}" for n in range(11)]
    rows = [(genres[0], genres[j]) for j in range(11) for _ in range(j + 1)]
    rows += [(genre, genre) for genre in genres[1:]]
    table = pd.DataFrame(rows, columns=["genre", "predicted"]).assign(image=None)
    table["p_g0"] = np.ones(len(table))
    file = ConfusionBrowser(table, annotations=tmp_path / "a.csv").to_html(tmp_path / "c.html")
    page.emulate_media(color_scheme=scheme)
    page.goto(file.as_uri())
    contrasts = page.evaluate(
        """() => {
          const canvas = document.createElement("canvas").getContext("2d");
          const rgb = (colours) => {  // painted one over the other
            for (const colour of colours) {
              canvas.fillStyle = colour;
              canvas.fillRect(0, 0, 1, 1);
            }
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          const light = (c) => c.map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const ground = matchMedia("(prefers-color-scheme: dark)").matches ? "#121212" : "#fff";
          return [...document.querySelectorAll("td")].filter((td) => td.textContent).map((td) => {
            const style = getComputedStyle(td);
            const [a, b] = [rgb([ground, style.backgroundColor]), rgb([style.color])].map(light);
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          });
        }"""
    )
    assert len(contrasts) == 21
    assert min(contrasts) > 4.0
