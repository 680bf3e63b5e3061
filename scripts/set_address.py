"""Write the repository's address where a reader needs it; before, nothing links to it.

    python scripts/set_address.py owner/name

pyproject.toml and CITATION.cff get the address. The README gets links to Colab and installs from
GitHub. The notebooks get a Colab badge, and in each cell with the metadata `colab` the commands
that Colab needs before the cell's own code. An earlier address is replaced.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLAB = "https://colab.research.google.com"


def add_badge(cell, address, name):
    """Put the badge "Open in Colab" below the title of a notebook."""
    badge = (
        f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]"
        f"({COLAB}/github/{address}/blob/main/notebooks/{name})"
    )
    lines = [line for line in source(cell).split("\n\n") if not line.startswith("[![Open in Colab")]
    set_source(cell, "\n\n".join([lines[0], badge, *lines[1:]]))


def add_commands(notebook, url):
    """Put the commands that a cell's metadata names, for Colab alone, before its code."""
    for cell in notebook["cells"]:
        if "colab" in cell["metadata"]:
            commands = "\n".join(f"    {one.format(url=url)}" for one in cell["metadata"]["colab"])
            own = re.sub(r'^import sys\n\nif "google.colab".*?\n\n', "", source(cell), flags=re.S)
            set_source(
                cell, f'import sys\n\nif "google.colab" in sys.modules:\n{commands}\n\n{own}'
            )


def source(cell):
    """The text of a cell, which a file has as a list of lines."""
    return "".join(cell["source"])


def set_source(cell, text):
    cell["source"] = text.splitlines(keepends=True)


def in_notebook(text, address, name):
    """A notebook with its badge and its commands."""
    notebook = json.loads(text)
    add_badge(notebook["cells"][0], address, name)
    add_commands(notebook, f"https://github.com/{address}")
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def in_readme(text, address):
    """The README with a link to Colab behind each notebook, and with installs from GitHub."""
    text = re.sub(rf" \(\[Colab\]\({COLAB}[^)]*\)\)", "", text)
    text = re.sub(
        r"\]\(notebooks/(\w+\.ipynb)\)",
        rf"\g<0> ([Colab]({COLAB}/github/{address}/blob/main/notebooks/\1))",
        text,
    )
    git = f"git+https://github.com/{address}"
    text = re.sub(r"pip install (\.|git\+[^\s`]+)(?=[\s`])", f"pip install {git}", text)
    extras = r'pip install "(?:\.|melgenre)(\[\w+\])(?: @ [^"]*)?"'
    return re.sub(extras, rf'pip install "melgenre\1 @ {git}"', text)


def in_pyproject(text, address):
    """pyproject.toml with the address among the project's links."""
    text = re.sub(r"\[project\.urls\]\n.*?\n\n", "", text, flags=re.S)
    links = f'[project.urls]\nRepository = "https://github.com/{address}"\n\n'
    return text.replace(
        "[tool.setuptools.packages.find]", f"{links}[tool.setuptools.packages.find]"
    )


def in_citation(text, address):
    """CITATION.cff with the address of the code."""
    text = re.sub(r"^repository-code: .*\n", "", text, flags=re.M)
    line = f'repository-code: "https://github.com/{address}"\n'
    return re.sub(r"^license: ", f"{line}license: ", text, flags=re.M)


def main():
    if len(sys.argv) != 2 or not re.fullmatch(r"[\w.-]+/[\w.-]+", sys.argv[1]):
        sys.exit("Give the repository's address as owner/name: make address REPO=owner/name")
    address = sys.argv[1]
    changes = {
        ROOT / "pyproject.toml": in_pyproject,
        ROOT / "CITATION.cff": in_citation,
        ROOT / "README.md": in_readme,
    }
    for file in sorted(ROOT.glob("notebooks/*.ipynb")):
        changes[file] = lambda text, address, name=file.name: in_notebook(text, address, name)
    for file, change in changes.items():
        file.write_text(change(file.read_text("utf-8"), address), encoding="utf-8")
        print(f"{file.relative_to(ROOT)}: {address}")


if __name__ == "__main__":
    main()
