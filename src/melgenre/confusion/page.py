"""A `ConfusionBrowser` as a standalone HTML page, which needs no Python."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.audio import AudioError
from ..files import atomic_write
from .clips import clips_in, describe_clips, image_png, sound_mp3

if TYPE_CHECKING:
    from .browser import ConfusionBrowser

HERE = Path(__file__).parent
SUFFIXES = {"image": "png", "mp3": "mp3"}


def front_end() -> str:
    """The JavaScript of the widget, as one module."""
    return "".join((HERE / name).read_text("utf-8") for name in ("matrix.js", "browser.js"))


def write_page(
    browser: ConfusionBrowser,
    file: str | Path,
    *,
    clips_per_cell: int,
    seconds: float,
    media: str | Path | None = None,
) -> Path:
    """Write the page; see `ConfusionBrowser.to_html`."""
    file = Path(file)
    cells = clips_in(browser.results, None, None).groupby(["genre", "predicted"])
    shown = cells.head(clips_per_cell)
    clips = describe_clips(shown, "results", browser.annotations, browser.settings)
    for clip in clips:
        for kind, content in _media(browser, clip, seconds).items():
            if media is None:
                clip[kind] = base64.b64encode(content).decode()
            elif content:
                saved = _save(content, Path(media, f"{clip['row']}.{SUFFIXES[kind]}"))
                clip[kind] = Path(os.path.relpath(saved, file.parent)).as_posix()
    matrix = {**browser.matrix, "labels": [], "attribution": False, "neighbours": False}
    data = {"matrix": matrix, "clips": clips, "clips_per_cell": clips_per_cell}
    data["inline"] = media is None
    parts = {
        "CSS": (HERE / "browser.css").read_text("utf-8"),
        "MODULE": front_end().replace("export default", "const widget ="),
        # A name may contain anything, also the end tag of a script.
        "DATA": json.dumps(data).replace("<", "\\u003c"),
    }
    page = (HERE / "page.html").read_text("utf-8")
    for name, text in parts.items():
        page = page.replace(f"/*{name}*/", text, 1)
    with atomic_write(file) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return file


def _media(browser: ConfusionBrowser, clip: dict[str, Any], seconds: float) -> dict[str, bytes]:
    """A clip's image and the middle of its sound; where that begins goes to its description."""
    track = browser.results.loc[clip["row"]]
    media = {"image": image_png(track, browser.settings)}
    if clip["sound"] == "available":
        try:
            media["mp3"] = sound_mp3(track, browser.settings, seconds)
            clip["sound_start"] = max(0.0, (clip["seconds"] - seconds) / 2)
        except AudioError as error:
            clip["error"] = str(error)
    return media


def _save(content: bytes, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as unfinished:
        unfinished.write_bytes(content)
    return file
