"""A `ConfusionBrowser` as one standalone HTML file, which needs no Python."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.audio import AudioError
from ..files import atomic_write
from .clips import clips_in, describe_clips, image_png, sound_mp3

if TYPE_CHECKING:
    from .browser import ConfusionBrowser

HERE = Path(__file__).parent


def write_page(
    browser: ConfusionBrowser, file: str | Path, *, clips_per_cell: int, seconds: float
) -> Path:
    """Write the page; see `ConfusionBrowser.to_html`."""
    cells = clips_in(browser.results, None, None).groupby(["genre", "predicted"])
    shown = cells.head(clips_per_cell)
    clips = describe_clips(shown, "results", browser.annotations, browser.settings)
    for clip in clips:
        _embed_media(browser, clip, seconds)
    matrix = {**browser.matrix, "labels": [], "attribution": False, "neighbours": False}
    data = {"matrix": matrix, "clips": clips, "clips_per_cell": clips_per_cell}
    parts = {
        "CSS": (HERE / "browser.css").read_text("utf-8"),
        "MODULE": (HERE / "browser.js")
        .read_text("utf-8")
        .replace("export default", "const widget ="),
        # A name may contain anything, also the end tag of a script.
        "DATA": json.dumps(data).replace("<", "\\u003c"),
    }
    page = (HERE / "page.html").read_text("utf-8")
    for name, text in parts.items():
        page = page.replace(f"/*{name}*/", text, 1)
    file = Path(file)
    with atomic_write(file) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return file


def _embed_media(browser: ConfusionBrowser, clip: dict[str, Any], seconds: float) -> None:
    """Add a clip's image and the middle of its sound to its description."""
    track = browser.results.loc[clip["row"]]
    clip["image"] = _base64(image_png(track, browser.settings))
    if clip["sound"] != "available":
        return
    try:
        clip["mp3"] = _base64(sound_mp3(track, browser.settings, seconds))
        clip["sound_start"] = max(0.0, (clip["seconds"] - seconds) / 2)
    except AudioError as error:
        clip["error"] = str(error)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
