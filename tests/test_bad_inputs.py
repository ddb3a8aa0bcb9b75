"""Every wrong input of the table: one sentence that names it, status 2, nothing lost or left."""
import hashlib
import io
import sys
from pathlib import Path

import pytest

from bad_inputs import table

TABLE = table()


def snapshot(folder: Path) -> dict:
    "Every file and folder below `folder`, with a digest of its content."
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{kind}: {row.title}")
                                 for kind, row in TABLE])
def test_is_refused_with_one_sentence(row, called, tmp_path, monkeypatch):
    if row.make:
        row.make(tmp_path)
    before = snapshot(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path.parent / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    typed = io.TextIOWrapper(io.BytesIO(row.stdin or b""), encoding="utf-8",
                             errors="surrogateescape")
    monkeypatch.setattr(sys, "stdin", typed)
    done = called(*row.arguments)
    said = [line for line in done.stderr.splitlines() if line.startswith("qlora-nb")]
    assert done.returncode == 2, done.stderr
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in row.words:
        assert str(word) in said[0], said[0]
    assert snapshot(tmp_path) == before, "something was lost, changed or left behind"


def test_the_table_is_long_and_says_each_thing_once():
    titles = [row.title for _, row in TABLE]
    assert len(titles) == len(set(titles)) and len(titles) >= 80
