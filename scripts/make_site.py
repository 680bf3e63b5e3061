"""Build the documentation pages.

    python scripts/make_site.py [--out site]

The sources are gathered in `build/site`, which keeps the predictions of the live page for the next
time. Nothing is downloaded. Any warning, such as a broken link, is an error.
"""

import argparse
import shutil
import sys
from pathlib import Path

from make_live_page import make_live_page
from site_api import write_api
from site_pages import MEDIA, ROOT, gather_pages
from sphinx.cmd.build import build_main


def make_site(out: Path, build: Path) -> int:
    """Build the pages; returns Sphinx's exit status."""
    live, sources, pages = build / "live", build / "sources", build / "html"
    make_live_page(live)
    for folder in (sources, pages):
        shutil.rmtree(folder, ignore_errors=True)
    sources.mkdir()
    gather_pages(sources)
    write_api(sources / "api")
    shutil.copy(live / "live.md", sources)
    status = build_main(
        ["-c", str(ROOT / "docs"), "-d", str(build / "doctrees"), "-W", "--keep-going", "-q",
         str(sources), str(pages)]
    )  # fmt: skip
    if status:
        return status
    shutil.copytree(live / "live", pages / "live")
    if (sources / MEDIA).exists():
        shutil.copytree(sources / MEDIA, pages / MEDIA)
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(pages, out)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "site")
    options = parser.parse_args()
    status = make_site(options.out, options.build)
    if not status:
        print(f"Open {options.out / 'index.html'} in a browser.")
    sys.exit(status)


if __name__ == "__main__":
    main()
