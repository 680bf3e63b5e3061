"""A `ConfusionBrowser` as one HTML file, for somebody without Python."""

import base64
import json
from pathlib import Path

from ..data.audio import AudioError
from ..files import atomic_write

HERE = Path(__file__).parent


def write_page(browser, file, *, clips_per_cell, seconds):
    """Write the page and print its size; `ConfusionBrowser.to_html` says the rest.

    Parameters
    ----------
    browser : melgenre.confusion.browser.ConfusionBrowser
    file : str or Path
    clips_per_cell : int
    seconds : float

    Returns
    -------
    Path
    """
    every = browser.clips_of(None, None)
    shown = every.groupby(["genre", "predicted"]).head(clips_per_cell)
    clips = browser.describe(shown, "results")
    for clip in clips:
        _embed(browser, clip, seconds)
    matrix = {**browser.matrix, "verdicts": [], "explains": False, "compares": False}
    data = {"matrix": matrix, "clips": clips, "clips_per_cell": clips_per_cell}
    module = (HERE / "browser.js").read_text().replace("export default", "const widget =")
    # Names of clips and genres may hold anything, also the end of a script.
    data = json.dumps(data).replace("<", "\\u003c")
    page = (HERE / "page.html").read_text()
    for mark, text in (
        ("CSS", (HERE / "browser.css").read_text()),
        ("MODULE", module),
        ("DATA", data),
    ):
        page = page.replace(f"/*{mark}*/", text, 1)
    file = Path(file)
    with atomic_write(file) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    left_out = len(browser.results) - len(clips)
    print(
        f"{file.name}: {len(clips)} clips, up to {clips_per_cell} a cell ({left_out} left out), "
        f"{file.stat().st_size / 1e6:.1f} MB."
    )
    return file


def _embed(browser, clip, seconds):
    """Put a clip's image and the middle of its sound into its description."""
    track = browser.results.loc[clip["row"]]
    clip["image"] = _base64(browser.image_png(track))
    if clip["sound"] != "here":
        return
    try:
        clip["mp3"] = _base64(browser.sound_mp3(track, seconds))
        clip["sound_start"] = max(0.0, (clip["seconds"] - seconds) / 2)
    except AudioError as error:
        clip["error"] = str(error)


def _base64(content):
    return base64.b64encode(content).decode()
