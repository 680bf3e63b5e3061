"""The documentation pages: their links, what they load, and how they work in Chromium."""

import http.server
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT

import melgenre as mg

pytest.importorskip("myst_nb", reason="needs Sphinx: pip install -e .[site]")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Sphinx, in its extensions
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

WIDTHS = (360, 1280)


class Elements(HTMLParser):
    """All elements of a page, as (tag, attributes)."""

    def __init__(self, file):
        super().__init__()
        self.elements = []
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    @property
    def links(self):
        return [attrs["href"] for tag, attrs in self.elements if tag == "a" and attrs.get("href")]

    @property
    def loaded(self):
        """Addresses that a browser loads with the page."""
        for tag, attrs in self.elements:
            for name in ("src", "srcset", "poster", "data"):
                if attrs.get(name):
                    yield attrs[name]
            if tag == "link" and attrs.get("rel") not in ("index", "search", "next", "prev"):
                yield attrs["href"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, with fewer clips on the live page."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        import make_live_page
        import make_site

        patch.setattr(make_live_page, "CLIPS_PER_GENRE", 3)
        assert make_site.make_site(folder / "pages", folder / "build") == 0
    return folder / "pages"


@pytest.fixture(scope="module")
def pages(site):
    """Each page by its file."""
    files = [file for file in site.rglob("*.html") if "_static" not in file.parts]
    return {file: Elements(file) for file in files}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(site):
    """The address of a server of the pages: results of a search quote pages only over HTTP."""
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=site)
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def names(site, pages):
    return sorted(file.relative_to(site).with_suffix("").as_posix() for file in pages)


def test_every_document_and_notebook_is_a_page(site, pages):
    found = names(site, pages)
    for file in [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("docs/*.md")]:
        assert file.relative_to(ROOT).with_suffix("").as_posix() in found
    assert {"index", "live", "results/README", "results/NOTES", "benchmarks/README"} <= set(found)
    assert ("bibliography" in found) == (ROOT / "src/melgenre/references.bib").exists()


def test_every_link_leads_to_a_file_and_an_anchor(pages):
    ids = {file: {attrs.get("id") for _, attrs in page.elements} for file, page in pages.items()}
    broken = []
    for file, page in pages.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and anchor not in ids.get(target, ())):
                broken.append(f"{file.name}: {link}")
    assert broken == []


def test_the_pages_load_nothing_from_other_hosts(site, pages):
    loaded = [address for page in pages.values() for address in page.loaded]
    assert len(loaded) > 100
    assert [a for a in loaded if urlsplit(a).scheme not in ("", "data") or a[:2] == "//"] == []
    for file in site.rglob("*.css"):
        assert "url(http" not in file.read_text("utf-8")


def test_every_image_has_a_text(pages):
    images = [attrs for page in pages.values() for tag, attrs in page.elements if tag == "img"]
    assert len(images) > 20
    assert all(attrs.get("alt") for attrs in images)


def test_every_public_name_is_documented_and_found(site, pages):
    anchors = {attrs.get("id") for page in pages.values() for _, attrs in page.elements}
    assert {f"melgenre.{name}" for name in mg.__all__} <= anchors
    assert '"load_audio"' in (site / "searchindex.js").read_text("utf-8")


def test_a_notebook_shows_outputs_and_no_widget(site):
    text = (site / "notebooks" / "06_hear_the_confusions.html").read_text("utf-8")
    assert "run the notebook to use it" in text  # in place of the widget
    assert "widget-view" not in text
    assert 'audio preload="none"' in text


def build(folder, text, *options):
    """Build a start page of this text with the settings of the site; returns the process."""
    (folder / "index.md").write_text(f"# Start\n\n{text}\n", encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-c", str(ROOT / "docs"), *options,
               str(folder), str(folder / "html")]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True)


def test_a_broken_link_fails_the_build(tmp_path):
    ran = build(tmp_path, "[nothing](docs/nothing.md)")
    assert ran.returncode != 0
    assert "docs/nothing.md" in ran.stderr


@pytest.mark.parametrize("address", ["", "https://github.com/me/mine"])
def test_links_to_source_files_lead_to_the_repository_if_it_has_an_address(tmp_path, address):
    ran = build(tmp_path, "[licence](LICENSE)", "-D", f"repository={address}")
    assert ran.returncode == 0, ran.stderr
    text = (tmp_path / "html" / "index.html").read_text("utf-8")
    assert ">licence<" in text or "<p>licence" in text
    assert (f'href="{address}/blob/main/LICENSE"' in text) == bool(address)


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_scrolls_sideways(site, pages, page, width):
    page.set_viewport_size({"width": width, "height": 740})
    wide = []
    for name in names(site, pages):
        if name.startswith("_media"):
            continue
        page.goto((site / f"{name}.html").as_uri())
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(name)
    assert wide == []


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
def test_menu_search_and_dark_mode_work(address, page, width):
    page.set_viewport_size({"width": width, "height": 740})
    page.goto(f"{address}/index.html")
    if width == WIDTHS[0]:
        page.locator(".mobile-header label.nav-overlay-icon").click()
    page.locator(".sidebar-drawer").get_by_role("link", name="The confusion matrix, live").click()
    page.wait_for_url("**/live.html")
    toggle = page.locator(".theme-toggle:visible")
    colours = set()
    for _ in range(3):  # automatic, light, dark
        toggle.click()
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2
    page.goto(f"{address}/search.html?q=load_audio")
    page.locator("#search-results a").filter(has_text="load_audio").first.wait_for()


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
def test_the_live_page_plays_a_clip(site, page, width):
    page.set_viewport_size({"width": width, "height": 740})
    hosts = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.goto((site / "live.html").as_uri())
    assert "synthetic" in page.locator(".admonition").inner_text()
    cell = page.locator("td:not(:empty)").first
    if width == WIDTHS[0]:
        cell.click()
    else:  # by keyboard alone
        page.locator("td[tabindex='0']").focus()
        page.keyboard.press("Enter")
    page.locator("article").first.wait_for()
    page.locator("article button").first.press("Enter")
    page.wait_for_function("() => document.querySelector('article audio').currentTime > 0.2")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert hosts == {""}
    sizes = [file.stat().st_size for file in Path(site, "live").iterdir()]
    assert sum(sizes) < 4_000_000
