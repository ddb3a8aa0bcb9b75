"""Wrong inputs by kind: each module holds the rows of one kind, `test_bad_inputs` tries them all.

`python tests/bad_inputs` prints the whole table.
"""
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from qlora_nb.micro import micro_folder

KINDS = ["options", "checkpoints", "tokenizers", "adapters", "rows", "outputs", "questions",
         "memory", "evaluations"]


@dataclass(frozen=True)
class Bad:
    "One wrong input, and what the one sentence about it must name."

    title: str  # what is wrong, as the table says it
    arguments: list  # of `qlora-nb`, typed in an empty folder
    words: list  # each must stand in the sentence
    make: Callable[[Path], None] | None = None  # lays out the files in that folder
    stdin: bytes | None = None


def table() -> list[tuple[str, Bad]]:
    "All rows, with their kind."
    return [(kind, row) for kind in KINDS for row in import_module(f"bad_inputs.{kind}").ROWS]


def micro_model(folder: Path, name: str = "model") -> Path:
    "A copy of the micro model in `folder`, to be spoiled."
    return Path(shutil.copytree(micro_folder() / "model", folder / name))


def edit_json(path: Path, **changes) -> None:
    "Change some values of a JSON object in a file."
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def write_rows(path: Path, rows: list) -> Path:
    "A JSONL file of `rows`."
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
