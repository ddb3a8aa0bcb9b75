"""Write what nbs/24_claims.ipynb computes as JSON into the package.

    python docs/claims.py

The chapter's last proof compares the two, so a stale file fails `make test`.
"""
import json
import os
import re

from adapter import directives, text
from colab import is_setup
from project import NBS, ROOT

CHAPTER = NBS / "24_claims.ipynb"
TARGET = ROOT / "qlora_nb" / "data" / "claims" / "claims.json"


def main() -> None:
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    names: dict = {"__name__": "__main__"}
    os.chdir(NBS)
    for cell in cells:
        code = text(cell)
        if cell["cell_type"] != "code" or is_setup(cell) or "default_exp" in directives(cell):
            continue
        if "read_claims())" in code:
            break  # what is to be written is not compared with what was
        exec(compile(re.sub(r"^#\|.*", "", code, flags=re.M), cell["id"], "exec"), names)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(names["claims_json"](names["claims"]), encoding="utf-8")


if __name__ == "__main__":
    main()
