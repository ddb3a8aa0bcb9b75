"""Write the Colab badge and the Colab set-up cell of every notebook from settings.ini.

    python docs/colab.py            write them where they are missing or old
    python docs/colab.py --check    change nothing; exit with 1 if one is missing or old

A notebook is opened straight from the repository, so both must stand in it; the names of owner
and repository that they hold come from settings.ini alone. The badge is the markdown cell that
begins with `<!-- colab -->`, behind the opening; the set-up cell is the code cell that begins
with `#| hide` and `# Colab`, behind `#| default_exp`. Neither is shown on the site.
"""
import hashlib
import json
import re
import sys
from pathlib import Path

from project import colab, notebooks, repository, settings
from qlora_nb.core import whole_file

BADGE, SETUP = "<!-- colab -->", "#| hide\n# Colab"
IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"


def badge(notebook: str) -> str:
    "The markdown that opens a notebook on Colab."
    return f"{BADGE}\n[![Open in Colab]({IMAGE})]({colab(notebook)})"


def setup() -> str:
    "Code that installs the package, with what chapters use beside it, where it is missing."
    found = settings()
    name, address = found["lib_name"], f"git+{repository()}@{found['branch']}"
    return (f"{SETUP} has no {name} yet: install it. Elsewhere this cell does nothing.\n"
            "from importlib.util import find_spec\n\n"
            f'if find_spec("{name}") is None:\n'
            f'    package = "{name}[chapters] @ {address}"\n'
            """    get_ipython().run_line_magic("pip", f'install --quiet "{package}"')""")


def is_badge(cell) -> bool:
    return cell["cell_type"] == "markdown" and "".join(cell["source"]).strip().startswith(BADGE)


def is_setup(cell) -> bool:
    return cell["cell_type"] == "code" and "".join(cell["source"]).startswith(SETUP)


def filled(nb: dict, notebook: str) -> dict:
    "The notebook with one badge and one set-up cell, both of today, each in its place."
    old = {"markdown": next(filter(is_badge, nb["cells"]), {}),
           "code": next(filter(is_setup, nb["cells"]), {})}
    place = next((i for i, cell in enumerate(nb["cells"]) if is_badge(cell)), 1)
    cells = [cell for cell in nb["cells"] if not is_setup(cell) and not is_badge(cell)]
    cells.insert(place, cell("markdown", badge(notebook), old, notebook))
    exports = [i for i, cell in enumerate(cells) if cell["cell_type"] == "code"
               and re.match(r"#\|\s*default_exp", "".join(cell["source"]))]
    cells.insert(exports[0] + 1 if exports else place + 1, cell("code", setup(), old, notebook))
    return {**nb, "cells": cells}


def cell(kind: str, text: str, old: dict, notebook: str) -> dict:
    "A cell in nbformat's terms, under the name it had, or one that follows from its place."
    name = old[kind].get("id") or hashlib.sha1(f"{notebook} {kind}".encode()).hexdigest()[:8]
    extra = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "id": name, "metadata": {}, **extra,
            "source": text.splitlines(keepends=True)}


def main() -> int:
    check, old = "--check" in sys.argv[1:], []
    named = [Path(name) for name in sys.argv[1:] if not name.startswith("-")]
    for path in named or notebooks():
        text = path.read_text(encoding="utf-8")
        nb = filled(json.loads(text), path.name)
        fresh = json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        if fresh != text:
            old.append(path.name)
            if not check:
                with whole_file(path) as temporary:
                    temporary.write_text(fresh, encoding="utf-8")
    if check and old:
        print(f"the Colab cells of {', '.join(old)} do not follow settings.ini; "
              "run: python docs/colab.py", file=sys.stderr)
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
