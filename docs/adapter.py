"""Turn the notebooks of an edition into the pages that Sphinx reads, in docs/_build/en/source/.

nbdev's processors take the directives out of the cells. What nbdev would leave to Quarto, and to a
run of every exported cell (exec_show_docs), is done here from the text alone: an exported
definition is followed by its entry in the reference, made from its syntax tree and the comments
behind its parameters. So nothing is imported or run, and a build takes seconds.
"""
import ast
import io
import json
import re
import tokenize
from collections.abc import Collection
from functools import cache
from itertools import groupby
from pathlib import Path

from execnb.nbio import dict2nb
from myst_parser.slugs import github_slugify, unique_slug
from nbdev.process import NBProcessor
from nbdev.processors import (
    clean_magics, filter_stream_, hide_, hide_line, rm_header_dash, strip_ansi,
)

from colab import is_badge, is_setup
from editions import ENGLISH, Edition
from po import store
from project import APPENDICES, PARTS, ROOT, page, part, settings, source
from qlora_nb.core import InputError
from readme import outside_code

PROCESSORS = [strip_ansi, hide_line, filter_stream_, rm_header_dash, clean_magics, hide_]
EXPORTS = {"export", "exports"}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
FUNCTIONS = DEFINITIONS[:2]
# Calls that teach nothing: a cell of these and of imports is folded.
SETTINGS = {"use_style", "speak", "set_printoptions", "set_verbosity_error", "set_verbosity", "filterwarnings",
            "simplefilter", "disable_progress_bar", "disable_progress_bars", "set_num_threads"}
VIEW = "application/vnd.jupyter.widget-view+json"


# --- what a notebook defines ---------------------------------------------------------------------

def module(nb: dict) -> str | None:
    "The module that a notebook exports to, from its `#| default_exp`."
    for cell in nb["cells"]:
        found = re.match(r"#\|\s*default_exp\s+(\S+)", text(cell))
        if found and cell["cell_type"] == "code":
            return found[1]


def text(cell: dict) -> str:
    return "".join(cell["source"])


def definitions(code: str) -> list:
    "The public functions and classes that a cell of code defines."
    try:
        tree = ast.parse(code).body
    except SyntaxError:
        return []
    return [node for node in tree if isinstance(node, DEFINITIONS) and node.name[0] != "_"]


def directives(cell: dict) -> set:
    "The names of the directives that a cell begins with."
    return set(re.findall(r"^#\|\s*(\w+)", text(cell), flags=re.M))


class Symbols:
    "Every exported definition: where it is described, and on which line its source stands."

    def __init__(self, books: dict):  # notebook's name -> its content
        self.places = {}  # short name -> full names, in the order of the chapters
        for _, home, node in entries(books):
            self.add(home, node.name)
            for method in methods(node):
                self.add(home, f"{node.name}.{method.name}")

    def add(self, home: str, name: str) -> None:
        full = f"{settings()['lib_name']}.{home}.{name}"
        if "." not in name and full in self.places:
            raise InputError(f"{full} is exported by two cells; keep one of them")
        for short in (name, f"{home}.{name}", full):
            self.places.setdefault(short, []).append(full)

    def find(self, name: str, home: str | None) -> str | None:
        "The full name that `name` stands for on the page of module `home`."
        found = self.places.get(name, [])
        own = [full for full in found if full.split(".")[1] == home]
        return (own or found or [None])[0]

    def link(self, markdown: str, home: str | None) -> str:
        "Markdown whose code spans that name a definition lead to its entry."
        def span(match):
            full = self.find(match[1], home)
            return f"{{py:obj}}`{match[1]}{match[2]} <{full}>`" if full else match[0]
        lines, fenced = markdown.split("\n"), False
        for i, line in enumerate(lines):
            if re.match(r"\s*(```|~~~)", line):
                fenced = not fenced
            elif not fenced and not line.startswith(("#", "    ")):
                # A span inside a link, `[`name`](…)`, or one that a role already reads, stays.
                pattern = r"(?<![`\[}\w])`([A-Za-z_][\w.]*)(\(\))?`(?![`\w]|\]\()"
                lines[i] = re.sub(pattern, lambda m: span(_Default(m)), line)
        return "\n".join(lines)


class _Default:
    "A match whose missing groups are empty."

    def __init__(self, match):
        self.match = match

    def __getitem__(self, index):
        return self.match[index] or ""


# --- an entry of the reference -------------------------------------------------------------------

def methods(node) -> list:
    "The public methods of a class that say what they do."
    if not isinstance(node, ast.ClassDef):
        return []
    return [item for item in node.body if isinstance(item, FUNCTIONS)
            and item.name[0] != "_" and ast.get_docstring(item)]


def comments(code: str) -> dict:
    "Line number -> the comment that ends the line."
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {token.start[0]: token.string.lstrip("# ").strip() for token in tokens
            if token.type == tokenize.COMMENT and token.line[:token.start[1]].strip()}


def parameters(node, notes: dict) -> list:
    "Rows (name, type, default, comment) of a function's parameters, without self and cls."
    args = node.args
    head = getattr(node.returns, "end_lineno", None)  # what ends this line is about the result
    notes = {line: note for line, note in notes.items() if line != head}
    plain = args.posonlyargs + args.args
    defaults = [None] * (len(plain) - len(args.defaults)) + args.defaults
    found = list(zip(plain, defaults)) + list(zip(args.kwonlyargs, args.kw_defaults))
    stars = [("*", args.vararg), ("**", args.kwarg)]
    rows = [row("", arg, default, notes) for arg, default in found
            if arg.arg not in ("self", "cls")]
    return rows + [row(star, arg, None, notes) for star, arg in stars if arg]


def row(star: str, arg, default, notes: dict) -> tuple:
    last = max(arg.end_lineno, getattr(default, "end_lineno", 0) or 0)
    return (star + arg.arg, unparsed(arg.annotation), unparsed(default), notes.get(last, ""))


def fields(node, notes: dict) -> list:
    "Rows of the fields of a dataclass or a named tuple, else of its `__init__`."
    for item in node.body:
        if isinstance(item, FUNCTIONS) and item.name == "__init__":
            return parameters(item, notes)
    bases = [unparsed(base) for base in node.bases + node.decorator_list]
    if not any(re.search("dataclass|NamedTuple|TypedDict", base) for base in bases):
        return []
    return [(item.target.id, unparsed(item.annotation), unparsed(item.value),
             notes.get(item.end_lineno, "")) for item in node.body
            if isinstance(item, ast.AnnAssign) and item.target.id[0] != "_"]


def unparsed(node) -> str:
    return ast.unparse(node) if node is not None else ""


def returned(node, notes: dict) -> tuple | None:
    "Type and comment of what a function returns, if it says so."
    if not getattr(node, "returns", None):
        return None
    return unparsed(node.returns), notes.get(node.returns.end_lineno, "")


def table(rows: list, result: tuple | None, edition: Edition) -> str:
    "The parameters as a markdown table; empty when there is nothing to say about them."
    def code(value):
        return f"`{value}`" if value else ""
    lines, say = [], edition.say
    for name, kind, default, note in rows:
        lines.append((code(name), code(kind), code(default), note))
    if result and (result[1] or result[0] != "None"):
        lines.append((f"*{say('returns')}*", code(result[0]), "", result[1]))
    if not lines:
        return ""
    heads = ["", say("type"), say("default"), say("meaning")]
    keep = [i for i in range(4) if i == 0 or any(line[i] for line in lines)]
    cut = [[line[i].replace("|", "\\|") for i in keep] for line in lines]
    rule = ["---"] * len(keep)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [[heads[i] for i in keep], rule, *cut])


def signature(node, rows: list) -> str:
    "Name, parameters and defaults; the types stand in the table."
    shown = [name + (f"={default}" if default else "") for name, _, default, _ in rows]
    args = getattr(node, "args", None)
    if args and args.kwonlyargs and not args.vararg:
        shown.insert(len(rows) - len(args.kwonlyargs) - bool(args.kwarg), "*")
    return f"{node.name}({', '.join(shown)})"


def described(kind: str, node, notes: dict, home: str, symbols: Symbols, inside: str,
              edition: Edition) -> str:
    "One directive of Sphinx's Python domain, with `inside` as the last part of its body."
    rows = fields(node, notes) if isinstance(node, ast.ClassDef) else parameters(node, notes)
    words = symbols.link(ast.get_docstring(node) or "", home)
    body = [words, table(rows, returned(node, notes), edition), inside]
    colons = ":::::" if isinstance(node, ast.ClassDef) else "::::"
    return "\n".join([
        f"{colons}{{py:{kind}}} {signature(node, rows)}",
        f":module: {settings()['lib_name']}.{home}", "",
        "\n\n".join(filter(None, body)), colons,
    ])


def entry(node, code: str, home: str, symbols: Symbols, edition: Edition = ENGLISH) -> str:
    "The reference entry of a definition, folded under one line."
    notes = comments(code)
    inside = "\n\n".join(described("method", method, notes, home, symbols, "", edition)
                         for method in methods(node))
    kind = "class" if isinstance(node, ast.ClassDef) else "function"
    whole = described(kind, node, notes, home, symbols, inside, edition)
    label = f"{home}.<b>{node.name}</b>"
    return (f'<details class="api"><summary><span class="kind">{kind}</span> <code>{label}</code>'
            f"</summary>\n\n{whole}\n\n</details>")


# --- a page --------------------------------------------------------------------------------------

def relinked(markdown: str, name: str, edition: Edition = ENGLISH) -> str:
    "Links to notebooks become links to pages, links to other files lead to the repository."
    def section(place, anchor):
        "Links name sections as the English edition does."
        return anchor if edition == ENGLISH else anchors(edition, place).get(anchor, anchor)

    def target(match):
        path, mark, anchor = match[2].partition("#")
        if not path:  # a section of this notebook, which Jupyter names as it is written
            return f"{match[1]}#{section(page(name), anchor.lower())})"
        if re.match(r"[a-z][a-z+.-]*:|/", path):
            return match[0]
        resolved = (edition.notebooks / path).resolve()
        if not resolved.exists() or not resolved.is_relative_to(ROOT):
            raise InputError(f"{edition.language}: nbs/{name} links to {match[2]!r}, which does not exist; "
                             "give the path of a file of the repository, seen from nbs/")
        if resolved.parent == edition.notebooks and resolved.suffix == ".ipynb":
            return f"{match[1]}{page(resolved.name)}.ipynb{mark}{section(page(resolved.name), anchor)})"
        place = resolved.relative_to(ROOT).as_posix()
        address = source(place) if resolved.is_file() else source(place).replace("/blob/", "/tree/")
        return f"{match[1]}{address}{mark}{anchor})"
    def change(match):
        return match[0] if match[0].startswith("!") else target(match)

    # A link's words may hold code, which is cut out here: so a link is known by its second half.
    return outside_code(markdown, lambda words: re.sub(
        r"!\[[^\]]*\]\([^)]*\)|(\]\()([^)\s]+)\)", change, words))


def callouts(markdown: str) -> str:
    "GitHub's alerts, `> [!NOTE]`, become callouts; they may hold prose, lists and formulae."
    def callout(match):
        body = re.sub(r"^> ?", "", match[2], flags=re.M).strip("\n")
        return f"::::{{{match[1].lower()}}}\n{body}\n::::\n"
    kinds = "NOTE|TIP|IMPORTANT|WARNING|CAUTION"
    return re.sub(rf"^> \[!({kinds})\][ ]*\n((?:>.*(?:\n|$))*)", callout, markdown, flags=re.M)


def new_cell(markdown: str, name: str) -> dict:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": markdown}


def statements(code: str) -> list:
    try:
        return ast.parse(code).body
    except SyntaxError:
        return []


def is_import(node) -> bool:
    "True for an import, alone or tried with something in its place."
    if isinstance(node, ast.Try):
        return all(map(is_import, node.body)) and not node.finalbody
    return isinstance(node, (ast.Import, ast.ImportFrom))


def is_setting(node) -> bool:
    "True for a call that only says how the rest shall look or run."
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] in SETTINGS


def folded(code: str, edition: Edition = ENGLISH) -> str | None:
    "The label under which a cell is folded that does nothing but prepare; None for any other cell."
    body = statements(code)
    if not body or not all(is_import(node) or is_setting(node) for node in body):
        return None
    kinds = {is_import(node) for node in body}
    say = edition.say
    return {(True,): say("Imports"), (False,): say("Settings")}.get(
        tuple(kinds), say("Imports and settings"))


def parted(code: str) -> tuple[str, str, list]:
    "A cell's code without its private definitions, these alone, and their names."
    lines, start = code.split("\n"), 0
    kept, helpers, names = [], [], []
    for node in statements(code):
        private = isinstance(node, DEFINITIONS) and node.name[0] == "_"
        (helpers if private else kept).extend(lines[start:node.end_lineno])
        names += [node.name] if private else []
        start = node.end_lineno
    kept += lines[start:]
    return "\n".join(kept).strip("\n"), "\n".join(helpers).strip("\n"), names


def fold(metadata: dict, label: str) -> dict:
    "The metadata of a cell whose code is folded under a label."
    return {**metadata, "tags": sorted({*metadata["tags"], "hide-input"}),
            "mystnb": {"code_prompt_show": label, "code_prompt_hide": label}}


def is_proof(node) -> bool:
    "True for an assertion, for a call that asserts, and for a loop or block of nothing else."
    if isinstance(node, (ast.For, ast.With, ast.If)):
        return all(map(is_proof, node.body + getattr(node, "orelse", [])))
    call = node.value if isinstance(node, ast.Expr) else None
    name = ast.unparse(call.func).split(".")[-1] if isinstance(call, ast.Call) else ""
    return isinstance(node, ast.Assert) or name.startswith(("assert_", "test_"))


def label(cell: dict, code: str, edition: Edition) -> str | None:
    "What a folded cell of code is called: `#| collapse: LABEL`, or what its statements say."
    named = re.search(r"^#\|\s*collapse\s*:\s*(.*\S)", text(cell), flags=re.M)
    if named:
        return named[1]
    if "collapse" in cell["directives_"] and (body := statements(code)) and all(map(is_proof, body)):
        return edition.say("Proof")
    return folded(code, edition)


def tags(cell: dict, found: set) -> list:
    "The tags by which MyST-NB hides or folds what the directives ask for."
    options = dict(re.findall(r"^#\|\s*([\w-]+)\s*:\s*(\w+)", text(cell), flags=re.M))
    made = []
    if found & {"hide_input"} or options.get("echo") == "false":
        made.append("remove-input")
    elif found & {"collapse", "collapse:", "collapse_input"} or options.get("code-fold") == "true":
        made.append("hide-input")
    if found & {"hide_output"} or options.get("output") == "false":
        made.append("remove-output")
    elif found & {"collapse_output"}:
        made.append("hide-output")
    if options.get("include") == "false":
        made.append("remove-cell")
    return made


def code_cells(cell: dict, home: str | None, symbols: Symbols, edition: Edition) -> list:
    "A cell of code as the page shows it, followed by the entries of what it exports."
    found = set(cell["directives_"])
    code = re.sub(r"^#\|.*\n?", "", cell["source"], flags=re.M).strip("\n")
    metadata = {"tags": sorted({*cell["metadata"].get("tags", []), *tags(cell, found)})}
    helpers = []
    if EXPORTS & found and not cell["outputs"] and "collapse:" not in found:
        code, rest, names = parted(code)
        if rest:
            helpers = [{**cell, "id": f"{cell['id']}-helpers", "source": rest,
                        "metadata": fold(metadata, edition.say("Helpers") + ": " + ", ".join(names))}]
    prompt = label(cell, code, edition)
    if prompt:
        metadata = fold(metadata, prompt)
    picture = [output for output in cell["outputs"] if "image/png" in output.get("data", {})]
    widths = [output["metadata"].get("image/png", {}).get("width") for output in picture]
    if picture:
        image = {"alt": edition.say("What the code above draws")}
        if any(widths):
            image["width"] = f"{max(filter(None, widths))}px"
        metadata["mystnb"] = {**metadata.get("mystnb", {}), "image": image}
    shown = {**cell, "source": code, "metadata": metadata}
    named = re.fullmatch(r"show_doc\((\w+)\)", code)
    if named or not code:
        return helpers
    exports = definitions(code) if EXPORTS & found else []
    return [shown, *(new_cell(entry(node, code, home, symbols, edition), f"api-{node.name}")
                     for node in exports), *helpers]


def figures(cells: list) -> list:
    "Captions, `*Figure: …*` under a picture, become captions to the eye and its alternative text."
    for above, cell in zip(cells, cells[1:]):
        found = re.match(r"\*(?:Figure|図): (.+?)\*(?:\n|$)", text(cell), flags=re.S)
        if not found or cell["cell_type"] != "markdown":
            continue
        cell["source"] = "{.figure-caption}\n" + text(cell)
        image = above["metadata"].get("mystnb", {}).get("image")
        if above["cell_type"] == "code" and any(
                "image/png" in output.get("data", {}) for output in above["outputs"]):
            alt = re.sub(r"[`*$\\]", "", found[1]).replace("\n", " ")
            above["metadata"]["mystnb"] = {**above["metadata"].get("mystnb", {}),
                                           "image": {**(image or {}), "alt": alt}}
    return cells


def link_drawings(nb: dict) -> None:
    "Let the links of drawings, which lead to notebooks, lead to pages."
    for output in (output for cell in nb["cells"] for output in cell.get("outputs", [])):
        if "<svg" in (drawn := "".join(output.get("data", {}).get("text/html", ""))):
            output["data"]["text/html"] = re.sub(
                r'<a href="([\w.-]+\.ipynb)">', lambda link: f'<a href="{page(link[1])}.html">', drawn)


CELL = re.compile(r'href="([\w.-]+\.ipynb)#cell-id=([\w-]+)"')


def linked_cells(books: dict) -> set:
    "The cells that outputs lead to, such as the proof of a claim: pairs of notebook's name and id."
    found = {pair for nb in books.values() for cell in nb["cells"] for output in cell.get("outputs", [])
             for pair in CELL.findall("".join(output.get("data", {}).get("text/html", "")))}
    for name, id in sorted(found):
        if id not in {cell.get("id") for cell in books.get(name, {"cells": []})["cells"]}:
            raise InputError(f"an output leads to cell {id} of nbs/{name}, which has none of this id; "
                             "name the cell that took its place")
    return found


def link_cells(nb: dict) -> None:
    "Let links of outputs to cells and to files of the repository lead to pages and to its site."
    for output in (output for cell in nb["cells"] for output in cell.get("outputs", [])):
        markup = "".join(output.get("data", {}).get("text/html", ""))
        if CELL.search(markup):
            markup = CELL.sub(lambda link: f'href="{page(link[1])}.html#cell-{link[2]}"', markup)
            output["data"]["text/html"] = re.sub(
                r'href="\.\./([^"]+)"', lambda link: f'href="{source(link[1])}"', markup)


def check_widgets(nb: dict, name: str) -> None:
    "Refuse a notebook that stores a widget: without a kernel and its scripts a page shows nothing."
    if any(VIEW in output.get("data", {}) for cell in nb["cells"]
           for output in cell.get("outputs", [])):
        raise InputError(f"nbs/{name} stores a widget; show markup or a picture in its place, "
                         "and the widget only where it is not stored")


def adapted(path: Path, symbols: Symbols, linked: Collection = (),
            edition: Edition = ENGLISH) -> dict:
    "The page of a notebook, as a notebook; cells in `linked`, (notebook, id), can be linked to."
    raw = json.loads(path.read_text(encoding="utf-8"))
    check_widgets(raw, path.name)
    link_drawings(raw)
    link_cells(raw)
    home = module(raw)
    raw["cells"] = [cell for cell in raw["cells"] if not is_badge(cell) and not is_setup(cell)]
    nb = NBProcessor(nb=dict2nb(raw), procs=PROCESSORS, process=True).nb
    cells = []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            words = callouts(symbols.link(relinked(cell.source, path.name, edition), home))
            cells.append({**cell, "source": words})
        elif cell.cell_type == "code" and "default_exp" not in cell.directives_:
            made = code_cells(dict(cell), home, symbols, edition)
            if (path.name, cell.get("id")) in linked:
                cells.append(new_cell(f'<div id="cell-{cell.id}"></div>', f"at-{cell.id}"))
            above = cells[-1] if cells and cells[-1]["cell_type"] == "code" else None
            both = above and made and above["source"] + "\n\n" + made[0]["source"]
            if both and all(folded(cell["source"], edition) and not cell["outputs"] for cell in (above, made[0])):
                cells[-1] = code_cells({**above, "source": both, "directives_": {}}, home, symbols,
                                       edition)[0]
            else:
                cells += made
    # nbdev's own names on a cell end in an underscore and do not belong into a file.
    number_title(cells, path.name)
    cells = [{key: value for key, value in cell.items() if key[-1] != "_"}
             for cell in figures(cells)]
    metadata = {**raw["metadata"], "source": f"{edition.notebooks.relative_to(ROOT).as_posix()}/{path.name}",
                "language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    return {**raw, "cells": cells, "metadata": metadata}


def number_title(cells: list, name: str) -> None:
    "Put a chapter's number before its title, as chapters name each other."
    number = re.match(r"\d+", name)
    if number:
        first = next(cell for cell in cells if cell["cell_type"] == "markdown")
        first["source"] = re.sub(r"^# ", f"# {number[0]} · ", first["source"], count=1)


def contents(paths: list, edition: Edition) -> str:
    "The parts and their chapters, for the sidebar and for previous and next."
    chapters = {name: [page(path.name) for path in paths if part(path.name) == name]
                for name in [*PARTS.values(), *APPENDICES]}
    for name, pages in APPENDICES.items():
        chapters[name].sort(key=pages.index)
    chapters[[*APPENDICES][-1]].append("reference")
    blocks = [f"```{{toctree}}\n:hidden:\n:caption: {edition.say(name)}\n\n" + "\n".join(pages) + "\n```"
              for name, pages in chapters.items() if pages]
    return "\n\n".join(blocks)


def entries(books: dict):
    "Every exported definition, in the order of the chapters: notebook, module, syntax tree."
    for name, nb in books.items():
        for cell in nb["cells"]:
            kinds = directives(cell) if cell["cell_type"] == "code" else set()
            if EXPORTS & kinds and "hide" not in kinds:
                for node in definitions(text(cell)):
                    yield name, module(nb), node


def summary(node) -> str:
    "The first paragraph of a docstring, in one line."
    return (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")


def places(edition: Edition) -> list:
    "Every exported definition for the search box: name, module, address and what it is."
    lib = settings()["lib_name"]
    return [{"name": node.name, "module": home, "url": f"{page(name)}.html#{lib}.{home}.{node.name}",
             "words": summary(node)} for name, home, node in entries(library(edition))]


def reference(books: dict, symbols: Symbols, edition: Edition = ENGLISH) -> str:
    "A page that lists every exported definition with the first sentence of its docstring."
    say = edition.say
    heads = ["# " + say("Library reference"),
             say("Every definition that the chapters export, in their order.") + edition.space
             + say("Each name leads to its entry in the chapter that explains it.")]
    blocks = ["\n\n".join(heads)]
    for (name, home), group in groupby(entries(books), key=lambda entry: entry[:2]):
        rows = []
        for _, _, node in group:
            words = symbols.link(summary(node).replace("|", "\\|"), home)
            full = symbols.find(f"{home}.{node.name}", home)
            rows.append(f"| {{py:obj}}`{node.name} <{full}>` | {words} |")
        title = f"## `{settings()['lib_name']}.{home}`"
        chapter = say("From {}.").format(f"[](./{page(name)}.ipynb)")
        head = " | ".join(["", say("definition"), say("what it is"), ""]).strip()
        blocks.append("\n".join([title, "", chapter, "", head, "|---|---|", *rows]))
    return "\n\n".join(blocks) + "\n"


def library(edition: Edition = ENGLISH) -> dict:
    "All notebooks of an edition by their names, chapters first."
    books = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in edition.files()}
    return dict(sorted(books.items(), key=lambda item: (not item[0][0].isdigit(), item[0])))


def headings(cell: dict) -> list:
    "The headings of a cell, as plain text."
    if cell["cell_type"] != "markdown":
        return []
    words = re.sub(r"^(```|~~~).*?^\1", "", text(cell), flags=re.S | re.M)
    return [re.sub(r"[`*]|\]\([^)]*\)|\[", "", line).strip()
            for line in re.findall(r"^#+ (.+)$", words, flags=re.M)]


@cache
def titles(edition: Edition) -> dict:
    "Page -> pairs of a heading and the same heading in English, in their order."
    books = library()
    return {page(name): [pair for cell, original in zip(nb["cells"], books[name]["cells"], strict=True)
                         for pair in zip(headings(cell), headings(original), strict=True)]
            for name, nb in library(edition).items()} | {
                "reference": [(edition.say("Library reference"), "Library reference")]}


@cache
def anchors(edition: Edition, name: str) -> dict:
    "The name of a page's section in English links -> its name in this edition, as MyST makes both."
    found, ours, theirs = {}, set(), set()
    for heading, original in titles(edition).get(name, []):
        english, here = unique_slug(github_slugify(original), theirs), unique_slug(
            github_slugify(heading), ours)
        theirs.add(english)
        ours.add(here)
        found[english] = here
    return found


def build(edition: Edition = ENGLISH) -> list:
    "Write all pages of an edition, remove those whose notebook is gone; return the pages' names."
    folder = edition.source
    folder.mkdir(parents=True, exist_ok=True)
    paths, books = edition.files(), library(edition)
    symbols, linked = Symbols(books), linked_cells(books)
    for name, nb in books.items():
        exported = f"{settings()['lib_path']}/{module(nb)}.py"
        if module(nb) and not (ROOT / exported).exists():
            raise InputError(f"nbs/{name} was not exported to {exported}; run: nbdev_export")
    files = {"reference.md": reference(books, symbols, edition)}
    for path in paths:
        nb = adapted(path, symbols, linked, edition)
        if path.stem == "index":
            nb["cells"].append(new_cell(contents(paths, edition), "contents"))
        files[f"{page(path.name)}.ipynb"] = json.dumps(nb, indent=1, ensure_ascii=False)
    for name, words in files.items():
        store(folder / name, words)  # Sphinx reads again only what is newer than its last build
    for path in folder.glob("*.*"):
        if path.name not in files:
            path.unlink()
    return sorted(Path(name).stem for name in files)
