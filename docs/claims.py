"""Write what nbs/24_claims.ipynb computes as JSON into the package, in both languages.

    python docs/claims.py

The chapter's last proof compares the two, so a stale file fails `make test`.
"""
import json
import os
import re

from adapter import directives, text
from colab import is_setup
from editions import EDITIONS, Edition
from project import ROOT

CHAPTER = "24_claims.ipynb"
FOLDER = ROOT / "qlora_nb" / "data" / "claims"


def computed(edition: Edition) -> str:
    "The ledger of an edition's chapter, after its cells have run."
    cells = json.loads((edition.notebooks / CHAPTER).read_text(encoding="utf-8"))["cells"]
    names: dict = {"__name__": "__main__"}
    for cell in cells:
        code = text(cell)
        if cell["cell_type"] != "code" or is_setup(cell) or "default_exp" in directives(cell):
            continue
        if 'read_claims("' in code:
            break  # what is to be written is not compared with what was
        exec(compile(re.sub(r"^#\|.*", "", code, flags=re.M), cell["id"], "exec"), names)
    return names["claims_json"](names["claims"])


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for edition in EDITIONS:
        os.chdir(edition.notebooks)
        (FOLDER / f"claims.{edition.language}.json").write_text(computed(edition), encoding="utf-8")


if __name__ == "__main__":
    main()
