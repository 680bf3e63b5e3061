"""Record the confusion browser in use, as an animated picture: what `make demo-picture` does.

The widget's own front end runs in Chromium, without Jupyter, and a real `ConfusionBrowser` of the
learner that notebook 4 has exported answers its requests. A confusion whose sound is available is
selected, a clip is played, and its attribution map is shown.
"""

import base64
import io
import json
import shutil
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import melgenre as mg
from melgenre.confusion.browser import ConfusionBrowser
from melgenre.confusion.clips import clips_in

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "resnet34"
PICTURE = ROOT / "results" / "confusion_browser.webp"
SIZE = {"width": 1060, "height": 560}
SMALLEST_PAUSE = 80  # ms between two pictures
PAGE = """<!doctype html><meta charset="utf-8"><style>
body { margin: 12px; font-family: system-ui, sans-serif; background: white; }
#pointer { position: fixed; z-index: 9; left: 560px; top: 500px; pointer-events: none;
  transition: left .6s, top .6s; }
%(css)s</style><div id="browser"></div>
<svg id="pointer" width="20" height="26"><path d="M1 1v20l5-5 4 9 4-2-4-8h7z" fill="black"
  stroke="white" stroke-width="1.5"/></svg>
<script type="module">
%(module)s
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const values = { matrix: %(matrix)s, selection: [null, null] };
const listeners = {};
const notify = (event, ...parts) => listeners[event]?.forEach((listener) => listener(...parts));
const model = {
  get: (name) => values[name],
  set(name, value) { values[name] = value; notify(`change:${name}`); },
  save_changes() {},
  on(event, listener) { (listeners[event] ??= new Set()).add(listener); },
  off(event, listener) { listeners[event]?.delete(listener); },
  async send(message) {
    const [answer, buffers] = JSON.parse(await window.ask(JSON.stringify(message)));
    notify("msg:custom", { ...answer, ticket: message.ticket }, buffers.map(bytes));
  },
};
widget.render({ model, el: document.getElementById("browser") });
</script>"""


def confusion_browser():
    """The browser of notebook 6, for the held-out clips."""
    learn, _ = mg.load_exported(MODEL)
    tracks = mg.load_collection()
    tracks = mg.extract_melspectrograms(tracks, mg.images_folder(tracks))
    split = mg.load_split(MODEL, tracks)
    clips = split[split["split"].isin(["valid", "test"])].reset_index(drop=True)
    training = split[split["split"] == "train"]
    return ConfusionBrowser(mg.predict_tracks(learn, clips), learn=learn, training=training)


def confusion_with_sound(browser):
    """True and predicted genre of a frequent confusion; the sound of its first clip if possible."""
    wrong = browser.results.query("genre != predicted").groupby(["genre", "predicted"])
    counts = wrong.size().sort_values(ascending=False)
    counts = counts[counts > 1]  # the label of a cell is a plural then
    first = [
        cell
        for cell in counts.index
        if isinstance(clips_in(browser.results, *cell)["path"].iloc[0], str)
    ]
    heard = [cell for cell in counts.index if wrong.get_group(cell)["path"].notna().any()]
    return (first or heard)[0]


class Recording:
    """Pictures of a page and their times; the mouse is drawn, since a picture does not show it."""

    def __init__(self, page):
        self.page, self.pictures, self.times = page, [], []

    def watch(self, seconds):
        """Take pictures for some time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.times.append(time.monotonic())
            self.pictures.append(self.page.screenshot())
            self.page.wait_for_timeout(SMALLEST_PAUSE)

    def click(self, element):
        """Move the mouse to an element, and click it."""
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        x, y = (round(box[at] + box[size] / 2) for at, size in (("x", "width"), ("y", "height")))
        move = f"Object.assign(pointer.style, {{left: '{x}px', top: '{y}px'}})"
        self.page.evaluate(move)
        self.watch(0.8)
        element.click()

    def save(self, file):
        """Write an animated WebP that runs for ever."""
        frames = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in self.pictures]
        spans = [round(1000 * (b - a)) for a, b in zip(self.times, self.times[1:], strict=False)]
        frames[0].save(
            file, save_all=True, append_images=frames[1:], duration=[*spans, 1500], loop=0,
            quality=60, method=4,
        )  # fmt: skip


def record(page, browser):
    """Play one clip of a confusion."""

    def ask(message):
        answer, buffers = browser._handle(json.loads(message))
        return json.dumps([answer, [base64.b64encode(one).decode() for one in buffers]])

    page.expose_function("ask", ask)
    page.set_content(
        PAGE
        % {
            "css": browser._css,
            "module": str(browser._esm).replace("export default", "const widget ="),
            "matrix": json.dumps(browser.matrix),
        }
    )
    genre, predicted = confusion_with_sound(browser)
    widget, film = page.locator(".melgenre-confusion"), Recording(page)
    film.watch(1)
    film.click(widget.locator(f"td[aria-label$='{genre} clips predicted as {predicted}']"))
    card = widget.locator("article", has=page.locator("button:enabled", has_text="Play")).first
    card.wait_for()
    film.watch(0.8)
    film.click(card.get_by_role("button", name="Play"))
    film.watch(3)
    film.click(card.get_by_role("button", name="Pause"))
    film.click(card.get_by_label("Attribution"))
    card.locator("img.attribution").wait_for()
    film.watch(2.5)
    return film


def main():
    if not (MODEL / "config.json").exists():
        raise SystemExit(f"No model in {MODEL.relative_to(ROOT)}: run notebook 4 first.")
    browser = confusion_browser()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        film = record(chromium.new_page(viewport=SIZE), browser)
        chromium.close()
    film.save(PICTURE)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
