"""Sphinx reads the pages that docs/adapter.py makes; this file says how they look.

docs/build.py runs it once for each edition, with `-D language=…`; docs/editions.py has their words.
"""
import ast
import gc
import html
import re
import sys
from functools import lru_cache
from pathlib import Path

from docutils import nodes
from docutils.transforms import Transform

sys.path.insert(0, str(Path(__file__).parent))
from adapter import titles  # noqa: E402
from editions import EDITIONS, ENGLISH, edition, in_script  # noqa: E402
from project import ROOT, colab, edit, questions, repository, settings, source  # noqa: E402

gc.set_threshold(100_000, 20, 50)  # the trees of pages are all cycles
SETTINGS = settings()
LANGUAGE = next((word.partition("=")[2] for word in sys.argv if word.startswith("language=")), "en")
EDITION = edition(LANGUAGE)
project = EDITION.say(SETTINGS["title"])
author = SETTINGS["author"]
project_copyright = SETTINGS["copyright"]
release = version = SETTINGS["version"]
language = LANGUAGE

extensions = ["myst_nb", "sphinx_copybutton", "sphinx.ext.linkcode"]
source_suffix = {".ipynb": "myst-nb", ".md": "myst-nb"}
root_doc = "index"

# Strict: a link, an anchor or a name that leads nowhere stops the build. The names of types in
# signatures are not ours to resolve.
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*"), ("py:exc", ".*")]
suppress_warnings = ["myst.header"]

# Outputs come from the notebooks, where docs/execute.py stored them.
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}
nb_number_source_lines = False
nb_render_markdown_format = "myst"  # outputs have tables, as cells do
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline", "attrs_block",
                          "deflist", "tasklist"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

# Formulae leave Sphinx as TeX; docs/finish.py draws them, so that no page loads a script for them.
html_math_renderer = "drawn"

templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_theme = "sphinx_book_theme"
html_title = project
html_context = {"default_mode": "auto", "lib": SETTINGS["lib_name"], "say": EDITION.say,
                "script_words": {english: EDITION.say(english) for english in in_script()}}
toc_object_entries = False
html_baseurl = EDITION.site
html_favicon = MARK = str(Path(__file__).parent / "_static" / "mark.svg")
html_copy_source = False
html_show_sphinx = False
html_use_index = False
html_domain_indices = False
html_permalinks_icon = "#"
html_sidebars = {"**": ["navbar-logo.html", "search-button-field.html", "sbt-sidebar-nav.html",
                         "as-book.html"]}
html_theme_options = {
    "repository_url": repository(),
    "repository_branch": SETTINGS["branch"],
    "path_to_docs": EDITION.notebooks.relative_to(ROOT).as_posix(),
    "use_download_button": False,
    "use_fullscreen_button": False,
    "footer_content_items": "copyright.html",
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "toc_title": EDITION.say("On this page"),
    "disable_search": True,
    "back_to_top_button": False,
    "logo": {"text": project, "image_light": MARK, "image_dark": MARK},
    "pygments_light_style": "github-light",
    "pygments_dark_style": "github-dark",
}
copybutton_selector = "div.cell_input div.highlight pre, div[class*=highlight-] div.highlight pre"


class EnglishAddresses(Transform):
    "Give every section the address that it has on the English page, before anything refers to it."
    default_priority = 50

    def apply(self):
        document, docname = self.document, self.document.settings.env.docname
        originals = list(titles(EDITION).get(docname, []))
        for section in document.findall(nodes.section):
            words = re.sub(r"^\d+ · ", "", section.next_node(nodes.title).astext().strip())
            original = next((pair for pair in originals if pair[0] == words), ("", ""))
            originals = originals[originals.index(original) + 1:] if original[0] else originals
            address = nodes.make_id(original[1])
            if not address or address in document.ids:
                continue
            for old in section["ids"]:
                document.ids.pop(old, None)
                for name in [name for name, id in document.nameids.items() if id == old]:
                    document.nameids[name] = address
            section["ids"] = [address]
            document.ids[address] = section


@lru_cache
def lines(module: str) -> dict:
    "Definition -> the line of the exported module on which it stands."
    path = ROOT / (module.replace(".", "/") + ".py")
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if hasattr(node, "name"):
            found[node.name] = node.lineno
            for item in getattr(node, "body", []):
                if hasattr(item, "name"):
                    found[f"{node.name}.{item.name}"] = item.lineno
    return found


def linkcode_resolve(domain: str, info: dict) -> str | None:
    "The address of a definition's source, for the link beside its signature."
    line = lines(info["module"]).get(info["fullname"])
    return source(info["module"].replace(".", "/") + f".py#L{line}") if line else None


def formula(writer, node):
    "Write a formula of the text as TeX, for docs/finish.py to draw."
    writer.body.append(f'<span class="math">{html.escape(node.astext())}</span>')
    raise nodes.SkipNode


def formula_block(writer, node):
    "Write a formula that stands by itself."
    writer.body.append(f'<div class="math display">{html.escape(node.astext())}</div>\n')
    raise nodes.SkipNode


def buttons(app, name, template, context, doctree):
    "The buttons over a page: this chapter on Colab, and its notebook in the repository."
    notebook = app.env.metadata.get(name, {}).get("source")
    place = notebook and Path(notebook).relative_to(SETTINGS["nbs_path"]).as_posix()
    context["notebook_colab"] = colab(place) if notebook else None
    context["notebook_source"] = source(notebook) if notebook else repository()
    context["notebook_edit"] = edit(notebook) if notebook else None
    context["questions"] = questions()
    context["header_buttons"] = []
    up = "../" * EDITION.prefix.count("/")
    context["others"] = [(one.language, one.name, f"{up}{one.prefix}{name}.html")
                         for one in EDITIONS if one != EDITION]


def own_search(app):
    "No index of Sphinx's own, which no page reads: docs/build.py makes the one that they do."
    app.builder.search = False


def setup(app):
    app.connect("builder-inited", own_search)
    app.add_html_math_renderer("drawn", (formula, None), (formula_block, None))
    if EDITION != ENGLISH:
        app.add_transform(EnglishAddresses)
    app.connect("html-page-context", buttons, priority=900)
