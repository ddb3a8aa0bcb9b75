"""Write what the comments behind parameters say into the docstrings of the exported modules.

In a notebook a parameter's meaning stands behind it, where the eye looks. `help()` and editors read
docstrings alone; so after every export each public definition of qlora_nb/ gets them, as sections
`Args` and `Returns`. Directives that nbdev leaves for Quarto, as `#| collapse: LABEL`, go.
"""
import ast
import re
import sys
import textwrap

import adapter
from project import ROOT, settings

WIDTH = 100
HEADS = r"^(Args|Attributes|Returns):$"


def sections(node, notes: dict) -> str:
    "The sections about parameters and result; empty when no comment says anything of them."
    is_class = isinstance(node, ast.ClassDef)
    rows = adapter.fields(node, notes) if is_class else adapter.parameters(node, notes)
    result = adapter.returned(node, notes)
    blocks = []
    if any(note for *_, note in rows):
        title = "Attributes" if is_class and not has_init(node) else "Args"
        blocks.append([f"{title}:", *(f"    {name}: {note}" for name, *_, note in rows if note)])
    if result and result[1]:
        blocks.append(["Returns:", f"    {result[1]}"])
    return "\n\n".join("\n".join(block) for block in blocks)


def has_init(node) -> bool:
    return any(getattr(item, "name", None) == "__init__" for item in node.body)


def literal(text: str, indent: str) -> list:
    "The lines of a docstring."
    lines = []
    for line in text.split("\n"):
        deeper = " " * (len(line) - len(line.lstrip()) + 4)
        lines += textwrap.wrap(line, WIDTH - len(indent), subsequent_indent=deeper,
                               break_long_words=False, break_on_hyphens=False,
                               drop_whitespace=True) or [""]
    mark = 'r"""' if "\\" in text else '"""'
    lines[0] = mark + lines[0]
    return [(indent + line).rstrip() for line in [*lines, '"""']]


def documented(code: str) -> str:
    "A module's source with the full docstrings, without directives."
    code = re.sub(r"^#\|.*\n", "", code, flags=re.M)
    notes, lines = adapter.comments(code), code.split("\n")
    found = []
    for node in ast.parse(code).body:
        if isinstance(node, adapter.DEFINITIONS) and node.name[0] != "_":
            found += [node, *adapter.methods(node)]
    for node in sorted(found, key=lambda node: node.lineno, reverse=True):
        words, more = ast.get_docstring(node), sections(node, notes)
        if words and more and '"""' not in words and not re.search(HEADS, words, re.M):
            place = node.body[0]
            lines[place.lineno - 1:place.end_lineno] = literal(f"{words}\n\n{more}",
                                                               " " * place.col_offset)
    return "\n".join(lines)


def main() -> int:
    for path in sorted((ROOT / settings()["lib_path"]).glob("[!_]*.py")):
        code = path.read_text(encoding="utf-8")
        if (made := documented(code)) != code:
            path.write_text(made, encoding="utf-8")
    index = ROOT / settings()["lib_path"] / "_modidx.py"  # nbdev knows no appendix: its page has no `a_`
    index.write_text(index.read_text(encoding="utf-8").replace("('a_", "('"), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
