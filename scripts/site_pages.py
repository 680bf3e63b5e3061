"""Gather the sources of the documentation pages in one folder, for Sphinx.

Each file keeps its place in the repository, so that its relative links hold. Only the README
becomes the start page, `index.md`.
"""

import base64
import hashlib
import html
import re
import shutil
from pathlib import Path

import nbformat
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
MEDIA = "_media"  # sounds and pages that were inside outputs of notebooks
AUDIO = re.compile(r'src="data:audio/(\w+);base64,([^"]+)"')
FRAME = re.compile(r'<iframe srcdoc="([^"]*)"')
WIDGET = "application/vnd.jupyter.widget-view+json"
# The order of the pages in docs/; others follow.
DOCS = ["your_music", "scale", "gtzan_tracks", "reliability", "layout"]

BIBLIOGRAPHY = """# Bibliography

```{eval-rst}
.. bibliography::
   :all:
   :style: unsrt
```
"""


def gather_pages(folder: Path) -> None:
    """Write all pages but those of the API and the live page."""
    for file in [*ROOT.glob("results/*"), *ROOT.glob("benchmarks/results/*")]:
        if file.suffix in (".png", ".webp", ".gif", ".svg"):
            _copy(file, folder)
    for file in ROOT.glob("notebooks/*.ipynb"):
        _write_notebook(file, folder)
    for file in _markdown():
        _copy(file, folder)
    (folder / "bibliography.md").write_text(BIBLIOGRAPHY, encoding="utf-8")
    (folder / "index.md").write_text(_start_page(folder), encoding="utf-8")


def _markdown():
    names = ["results/README", "results/NOTES", "benchmarks/README", "CONTRIBUTING", "CHANGELOG"]
    files = [ROOT / f"{name}.md" for name in names]
    return [file for file in files if file.exists()] + list((ROOT / "docs").glob("*.md"))


def _copy(file, folder):
    copy = folder / file.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix in (".webp", ".gif"):
        # The last frame of a moving picture, which has a tenth of its size: the live page moves.
        with Image.open(file) as image:
            image.seek(getattr(image, "n_frames", 1) - 1)
            image.convert("RGB").save(copy)
    else:
        shutil.copy(file, copy)


def _start_page(folder):
    """The README with links to the live page, and the menu."""
    text = (ROOT / "README.md").read_text("utf-8")
    live = "\n[**Hear the confusions in a live confusion matrix, here in your browser**](live.md)\n"
    text = re.sub(r"\A# .*\n\n(?:.+\n)+", lambda match: match[0] + live, text)
    text = re.sub(r"!\[[^]]*\]\([^)]*\.(webp|gif)\)", r"[\g<0>](live.md)", text)
    docs = sorted(file.stem for file in (folder / "docs").glob("*.md"))
    docs.sort(key=lambda name: DOCS.index(name) if name in DOCS else len(DOCS))
    notebooks = sorted(file.stem for file in (folder / "notebooks").iterdir())
    menu = {
        "Try it": ["live"],
        "Notebooks": [f"notebooks/{name}" for name in notebooks],
        "Results": ["results/README", "results/NOTES", "benchmarks/README"],
        "Documentation": [f"docs/{name}" for name in docs] + ["api/index", "bibliography"],
        "Project": ["CONTRIBUTING", "CHANGELOG"],
    }
    for caption, names in menu.items():
        pages = [name for name in names if name in ("live", "api/index") or _exists(folder, name)]
        if pages:
            options = f":hidden:\n:maxdepth: 1\n:caption: {caption}\n"
            text += "\n```{toctree}\n" + options + "\n" + "\n".join(pages) + "\n```\n"
    return text


def _exists(folder, name):
    return any((folder / f"{name}{suffix}").exists() for suffix in (".md", ".ipynb"))


def _write_notebook(file, folder):
    """Write a notebook that needs no kernel and whose page is small."""
    notebook = nbformat.read(file, as_version=4)
    notebook.metadata.pop("widgets", None)
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.M) or [heading])[-1]
            continue
        images = cell.metadata.setdefault("mystnb", {}).setdefault("image", {})
        images.setdefault("alt", f"Output of a cell below the heading “{_plain(heading)}”")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if len(data) > 1:
                data.pop(WIDGET, None)  # its text remains
            if "text/html" in data:
                data["text/html"] = _move_media(data["text/html"], folder)
    copy = folder / file.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, copy)


def _plain(heading):
    """A heading without the signs of Markdown."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)|[*_`]", r"\1", heading).strip()


def _move_media(text, folder):
    """Move sounds and whole pages out of HTML, into files that load when they are needed."""

    def sound(match):
        name = _save(base64.b64decode(match[2]), match[1].replace("mpeg", "mp3"), folder)
        return f'src="../{MEDIA}/{name}"'

    def frame(match):
        name = _save(html.unescape(match[1]).encode(), "html", folder)
        return f'<iframe loading="lazy" src="../{MEDIA}/{name}"'

    text = AUDIO.sub(sound, FRAME.sub(frame, text))
    return text.replace("<audio ", '<audio preload="none" ')


def _save(content, suffix, folder):
    (folder / MEDIA).mkdir(parents=True, exist_ok=True)
    name = f"{hashlib.sha256(content).hexdigest()[:16]}.{suffix}"
    (folder / MEDIA / name).write_bytes(content)
    return name
