"""Write the repository's address into pyproject.toml, README.md and every notebook.

    python scripts/set_address.py owner/name

pyproject.toml holds the address; the README, the Colab badges and the first cells of the notebooks
repeat it. All of them are replaced.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def current_address():
    """`owner/name`, as in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["urls"]["Repository"].removeprefix("https://github.com/")


def main():
    if len(sys.argv) != 2 or not re.fullmatch(r"[\w.-]+/[\w.-]+", sys.argv[1]):
        sys.exit("Give the repository's address as owner/name: make address REPO=owner/name")
    old, new = current_address(), sys.argv[1]
    for file in [ROOT / "pyproject.toml", ROOT / "README.md", *ROOT.glob("notebooks/*.ipynb")]:
        text = file.read_text(encoding="utf-8")
        # The address must end where a name does: `own/er` is not the address in `own/erased`.
        changed = re.sub(
            rf"(github(?:\.com)?/){re.escape(old)}(?![\w-]|\.\w)", rf"\g<1>{new}", text
        )
        if changed != text:
            file.write_text(changed, encoding="utf-8")
            print(f"{file.relative_to(ROOT)}: {old} -> {new}")


if __name__ == "__main__":
    main()
