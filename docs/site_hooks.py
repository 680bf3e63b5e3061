"""What the pages need beyond Sphinx: links to the repository, and light and accessible images."""

import re
from pathlib import Path
from urllib.parse import unquote

import imagesize
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parent.parent


class RepositoryLinks(SphinxTransform):
    """Turn links to files that are no pages into links to the repository.

    As long as the repository has no address, only their text remains. Links that lead to neither a
    page nor a file are left to Sphinx, which reports them.
    """

    default_priority = 400  # before images and links are collected

    def apply(self):
        for node in list(self.document.findall(nodes.image)):
            if "://" in node["uri"]:  # such as a badge: these pages load nothing from other hosts
                node.replace_self(nodes.inline("", node.get("alt", "")))
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node.get("reftype") == "myst" and node.get("refdomain") is None:
                self.resolve(node)

    def resolve(self, node):
        """Replace a link to a file or folder of the repository, or to the README."""
        target, _, anchor = unquote(node["reftarget"]).partition("#")
        path = (ROOT / self.env.docname).parent.joinpath(target).resolve()
        if not target or not path.exists() or not path.is_relative_to(ROOT):
            return
        path = path.relative_to(ROOT).as_posix()
        if path == "README.md":
            node.update_all_atts({"refdomain": "doc", "reftarget": "index"}, replace=True)
            node["reftargetid"] = anchor or None
        elif address := self.config.repository:
            link = nodes.reference("", "", refuri=f"{address}/blob/main/{path}")
            node.replace_self(link)
            link += node.children
        else:
            node.replace_self(node.children)


def finish_page(app, name, _template, context, _doctree):
    """Make a page lighter and complete its marks for screen readers."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )
    if "body" not in context:
        return
    if not str(app.env.doc2path(name)).endswith(".ipynb"):
        context["css_files"] = [
            css for css in context["css_files"] if "mystnb" not in str(css.filename)
        ]
    # A page is drawn before its scripts run. (The search page has more, which depend on these.)
    context["script_files"] = [
        type(js)(js.filename, priority=js.priority, **{**js.attributes, "defer": "defer"})
        for js in context["script_files"]
    ]

    def finish(match):
        tag = match[0]
        if "width=" not in tag and (size := sizes(app).get(Path(unquote(match[1])).name)):
            tag = tag.replace("<img", f'<img width="{size[0]}" height="{size[1]}"', 1)
        return tag.replace("<img", '<img loading="lazy"', 1)

    context["body"] = re.sub(r'<img [^>]*?src="([^"]*)"[^>]*>', finish, context["body"])


def sizes(app):
    """Name in `_images` -> width and height."""
    if not hasattr(app, "image_sizes"):
        app.image_sizes = {
            name: imagesize.get(Path(app.srcdir, source))
            for source, (_, name) in app.env.images.items()
        }
    return app.image_sizes


def trim_styles(app, error):
    """Remove the 256 colours of a terminal, most of MyST-NB's styles: no notebook prints them."""
    if error is None and app.builder.format == "html":
        for file in Path(app.outdir, "_static").glob("mystnb*.css"):
            text = file.read_text("utf-8")
            file.write_text(re.sub(r"div\.highlight \.-Color[^{]*{[^}]*}\s*", "", text), "utf-8")


def setup(app):
    app.add_config_value("repository", "", "env")
    app.add_transform(RepositoryLinks)
    app.connect("html-page-context", finish_page, priority=900)  # after the theme
    app.connect("build-finished", trim_styles, priority=900)  # after the files were copied
    return {"parallel_read_safe": True, "parallel_write_safe": True}
