"""Write the API pages: all public names of melgenre, one page per subpackage."""

import ast
import inspect
import textwrap
from pathlib import Path

from sphinx.pycode import ModuleAnalyzer

import melgenre

# The order of the pages; modules outside of a subpackage are on the last one.
SUBPACKAGES = ["data", "features", "training", "evaluation", "confusion", "inference"]
OTHERS = "general"


def public_names() -> dict[str, dict[str, str]]:
    """For each page the public names and their modules, in the order of `__init__.pyi`."""
    stub = Path(melgenre.__file__).with_name("__init__.pyi")
    pages = {page: {} for page in [*SUBPACKAGES, OTHERS]}
    for statement in ast.parse(stub.read_text("utf-8")).body:
        if isinstance(statement, ast.ImportFrom):
            package = statement.module.split(".")[0]
            page = pages[package if package in SUBPACKAGES else OTHERS]
            page |= {alias.name: f"melgenre.{statement.module}" for alias in statement.names}
    return pages


def write_api(folder: Path) -> None:
    """Write the pages to `folder`, and an index of them."""
    folder.mkdir(parents=True, exist_ok=True)
    index = [
        _title("API", "="),
        "``import melgenre as mg`` gives all names, and loads nothing until one is used.\n",
        ".. toctree::\n   :hidden:\n   :maxdepth: 1\n",
    ]
    index += [f"   {page}" for page in public_names()]
    for page, names in public_names().items():
        title = page if page == OTHERS else f"melgenre.{page}"
        (folder / f"{page}.rst").write_text(_page(title, page, names), encoding="utf-8")
        index += ["", _title(title, "-")]
        for name, module in names.items():
            summary = " ".join(_docstring(name, module).split("\n\n")[0].split())
            index.append(f"* :py:obj:`~melgenre.{name}`: {summary}")
    (folder / "index.rst").write_text("\n".join(index) + "\n", encoding="utf-8")


def _title(text, line):
    return f"{text}\n{line * len(text)}\n"


def _page(title, page, names):
    about = "" if page == OTHERS else f".. automodule:: melgenre.{page}\n   :no-index:\n"
    # The names in docstrings are links to names of melgenre.
    scope = ".. py:currentmodule:: melgenre\n"
    return "\n".join([_title(title, "="), about, scope, *(_entry(*name) for name in names.items())])


def _entry(name, module):
    """The directive that documents a name."""
    thing = getattr(melgenre, name)
    if inspect.isclass(thing):
        directive = f".. autoclass:: melgenre.{name}\n   :members:"
    elif callable(thing):
        directive = f".. autofunction:: melgenre.{name}"
    else:
        text = textwrap.indent(_docstring(name, module), "   ")
        directive = f".. py:data:: {name}\n   :type: {type(thing).__name__}\n\n{text}"
    return f"{directive}\n"


def _docstring(name, module):
    """The docstring of a public name; that of data stands below it in its module."""
    thing = getattr(melgenre, name)
    if inspect.isclass(thing) or callable(thing):
        return inspect.getdoc(thing)
    return "\n".join(ModuleAnalyzer.for_module(module).find_attr_docs()["", name]).strip()
