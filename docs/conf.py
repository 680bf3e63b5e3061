"""The settings of the documentation pages; `make site` builds them.

Sphinx with myst-nb and Furo, because MkDocs 1.x is no longer maintained, and Jupyter Book 2 cannot
document a Python API from docstrings and downloads its theme at build time.
"""

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))  # for site_hooks

project = "melgenre"
html_title = "melgenre"
author = "the authors of melgenre"
language = "en"
# "index" is the README.
root_doc = "index"
exclude_patterns = ["**/.ipynb_checkpoints", "_media", "live"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
extensions += ["sphinxcontrib.bibtex", "site_hooks"]
_project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
# Empty until `make address` has written the address.
repository = _project.get("urls", {}).get("Repository", "")

# Notebooks appear as they are committed. Without a kernel, a widget's scripts are of no use.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True
myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]

# numpydoc sections; signatures show the annotations.
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
default_role = "py:obj"
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

bibtex_bibfiles = ["../src/melgenre/references.bib"]  # seen from here
