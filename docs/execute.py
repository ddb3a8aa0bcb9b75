"""Run chapters from top to bottom, each in a fresh kernel, and store what they print and draw.

    python docs/execute.py                            all chapters
    python docs/execute.py nbs/00_bits.ipynb …        some
    python docs/execute.py --flags gpu nbs/18_rinna.ipynb

nbdev's directives hold: a cell with `#| eval: false`, and one behind a flag of `tst_flags` in
settings.ini (`#| gpu`, `#| slow`, `#| notest`) that --flags does not name, is not run and keeps
the outputs that it has. A notebook is written only when it ran to its end, in the form that
nbdev_clean leaves alone: without counts, addresses, progress bars or anything from stderr.
"""
import argparse
import copy
import json
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.clean import clean_nb
from nbdev.process import extract_directives

import po
from project import ROOT, notebooks, settings

# Pictures at two pixels per point, as nbdev_test draws them: sharp on today's screens.
PROLOGUE = """__import__("matplotlib_inline.config", fromlist=["*"]).InlineBackend.instance(
    parent=get_ipython()).figure_formats = {"retina"}"""
BAR = re.compile(r"%\||\d+/\d+ \|")  # of tqdm, with its percentage and without
QUIET = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
         "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}


def skipped(cell, flags: set) -> bool:
    "True if a code cell shall not be run; `flags` are those that are not asked for."
    directives = extract_directives(copy.deepcopy(cell), remove=False)
    if directives.get("eval:", [""])[:1] == ["false"]:
        return True
    return bool(flags & directives.keys()) or not cell.source.strip()


def run(path: Path, flags: set, timeout: int | None) -> tuple:
    "Execute a notebook; return it with the number of cells that were run and that were not."
    nb = nbformat.read(path, as_version=4)
    client = NotebookClient(nb, timeout=timeout, kernel_name="python3", coalesce_streams=True,
                            extra_arguments=["--log-level=ERROR"],
                            resources={"metadata": {"path": str(path.parent)}})
    counts = [0, 0]
    environment = {**os.environ, **QUIET}
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    client.reset_execution_trackers()
    with client.setup_kernel(env=environment):
        nb.cells.insert(0, nbformat.v4.new_code_cell(PROLOGUE))
        client.execute_cell(nb.cells[0], 0, store_history=False)
        for index, cell in enumerate(nb.cells):
            if cell.cell_type != "code" or index == 0:
                continue
            omit = skipped(cell, flags)
            counts[omit] += 1
            if not omit:
                cell.outputs = []
                client.execute_cell(cell, index)
                cell.outputs = [kept for kept in map(quiet, cell.outputs) if kept is not None]
        del nb.cells[0]
    nb.metadata.pop("widgets", None)
    return nb, *counts


def quiet(output):
    "An output without noise, or None: stderr is shown to the author, progress bars to nobody."
    if output.output_type == "stream":
        text = "\n".join(line.rsplit("\r", 1)[-1] for line in output.text.split("\n"))
        if output.name == "stderr":
            lines = [line for line in text.splitlines() if line.strip() and not BAR.search(line)]
            print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)
            return None
        output.text = text
    data = output.get("data", {})
    progress = "<progress" in "".join(data.get("text/html", ""))
    return None if progress or BAR.search("".join(data.get("text/plain", ""))) else output


def store(nb, path: Path) -> None:
    "Write a notebook in the form that nbdev_clean leaves unchanged, whole or not at all."
    keys = settings()
    plain = json.loads(nbformat.writes(nb))
    clean_nb(plain, False, keys["allowed_metadata_keys"].split(),
             keys["allowed_cell_metadata_keys"].split(), clean_ids=True)
    po.store(path, json.dumps(plain, sort_keys=True, indent=1, ensure_ascii=False) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of nbs/")
    parser.add_argument("--flags", default="", help="flags whose cells are run too: 'gpu slow'")
    parser.add_argument("--timeout", type=int, help="seconds that one cell may take; default: any")
    args = parser.parse_args()
    known = set(settings()["tst_flags"].split())
    asked = set(re.split(r"[\s,]+", args.flags.strip())) - {""}
    if asked - known:
        parser.error(f"unknown flag {min(asked - known)!r}; known: {', '.join(sorted(known))}")
    missing = [path for path in args.notebooks if not path.is_file()]
    if missing:
        parser.error(f"no notebook {str(missing[0])!r}; give paths such as nbs/a_core.ipynb")
    failed = []
    for path in map(Path.resolve, args.notebooks or notebooks()):
        start = time.perf_counter()
        try:
            nb, ran, kept = run(path, known - asked, args.timeout)
        except CellExecutionError as error:
            print(f"{path.name}: a cell fails; the notebook is unchanged\n{error}", file=sys.stderr)
            failed.append(path.name)
            continue
        store(nb, path)
        left = f", {kept} left as they were" if kept else ""
        print(f"{path.name}: {ran} cells{left}, {time.perf_counter() - start:.1f} s", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
