"""The ledger of claims: its evidence is there, and page, file and chapter say the same."""
import ast
import json
import re
from pathlib import Path

import pytest

from qlora_nb.claims import FAILS, HOLDS, OPEN, VERDICTS, Evidence, missing_evidence, read_claims
from qlora_nb.core import stored_result

ROOT = Path(__file__).parent.parent
NBS = ROOT / "nbs"
LEDGER = read_claims()
CLAIMS = LEDGER["claims"]


def test_each_piece_of_evidence_is_there():
    evidence = [Evidence(**each) for claim in CLAIMS for each in claim["evidence"]]
    assert missing_evidence(evidence, NBS) == []
    for each in evidence:
        assert each.kind != "result" or stored_result(each.place)
        assert each.kind != "words" or (each.place.startswith("https://") and each.says)
    cells = {(each.place, each.id) for each in evidence if each.kind == "cell" and each.place != "24_claims"}
    for place, id in cells:
        book = json.loads((NBS / f"{place}.ipynb").read_text(encoding="utf-8"))["cells"]
        code = "".join(next(cell["source"] for cell in book if cell["id"] == id))
        assert "assert" in code or "test_" in code, f"{place}, cell {id} proves nothing"


def test_there_are_as_many_as_promised_and_each_says_what_is_right():
    assert len(CLAIMS) >= 60 and sum(LEDGER["verdicts"].values()) == len(CLAIMS)
    assert list(LEDGER["verdicts"]) == list(VERDICTS) and all(LEDGER["verdicts"].values())
    for claim in CLAIMS:
        source = LEDGER["sources"][claim["source"]]
        assert source["address"] or source["japanese"] or claim["where"], claim["key"]
        assert claim["note"] or claim["verdict"] not in (FAILS, OPEN), claim["key"]
        assert not source["japanese"] or re.search("[ぁ-ん]", claim["japanese"]), claim["key"]


def test_what_runs_of_the_micro_model_show_is_said_of_it_alone():
    runs = {"codebooks", "compare_methods", "peft_families", "update_rank", "merging", "learning_rates",
            "capacity", "intruders", "batches", "ablations", "optimizers_cpu"}
    general = {"three-families"}  # counts numbers, and measures nothing
    for claim in CLAIMS:
        rests_on = {each["place"] for each in claim["evidence"] if each["kind"] == "result"}
        if rests_on & runs and claim["key"] not in general:
            assert "micro model" in claim["on"], claim["key"]
            assert claim["verdict"] != HOLDS, claim["key"]


def test_the_japanese_ledger_is_the_same_and_in_japanese():
    theirs = read_claims("ja")
    assert theirs["verdicts"] == LEDGER["verdicts"]
    for ours, japanese in zip(CLAIMS, theirs["claims"], strict=True):
        same = ("key", "source", "verdict", "japanese", "evidence")
        assert [ours[name] for name in same] == [japanese[name] for name in same], ours["key"]
        for name in ("part", "sentence", "note", "on"):
            assert not ours[name] or re.search("[ぁ-んァ-ン一-鿿]", japanese[name]), (ours["key"], name)
    cells = json.loads((NBS / "ja" / "24_claims.ipynb").read_text(encoding="utf-8"))["cells"]
    table = "".join("".join(output["data"]["text/html"]) for cell in cells if cell["id"] == "c1a20061"
                    for output in cell["outputs"])
    read = re.sub(r"<style>.*?</style>|<[^>]*>", " ", table, flags=re.S)
    assert not re.search(r"\b(holds?|claims|verdict|evidence|shown|here|section|table|appendix)\b", read)


def test_a_claim_whose_evidence_is_gone_stops_the_site(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import build
    from qlora_nb.core import InputError
    build.check_claims()
    monkeypatch.setattr(build, "NBS", tmp_path)
    with pytest.raises(InputError, match="no such cell"):
        build.check_claims()
    lost = Evidence("result", "no_such")
    assert missing_evidence([lost], NBS) and "no_such" in missing_evidence([lost], NBS)[0]


def test_no_verdict_is_written_down():
    found = []
    for cell in json.loads((NBS / "24_claims.ipynb").read_text(encoding="utf-8"))["cells"]:
        code = "".join(cell["source"])
        if cell["cell_type"] != "code" or "claims.begin(" not in code:
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "claim":
                holds = node.args[3]
                assert not isinstance(holds, ast.Constant) or holds.value is None, ast.unparse(node)
                found.append(holds)
    assert len(found) > 80


def test_the_stored_table_is_that_of_the_file():
    cells = json.loads((NBS / "24_claims.ipynb").read_text(encoding="utf-8"))["cells"]
    table = "".join("".join(output["data"]["text/html"]) for cell in cells if cell["id"] == "c1a20061"
                    for output in cell["outputs"])
    shown = re.findall(r'<tr id="claim-([^"]+)" data-verdict="([^"]+)"', table)
    assert sorted(shown) == sorted((claim["key"], claim["verdict"]) for claim in CLAIMS)


def test_a_link_to_a_lost_cell_stops_the_site(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import adapter
    from qlora_nb.core import InputError
    books = adapter.library()
    linked = adapter.linked_cells(books)
    assert len(linked) > 30
    name, lost = next(pair for pair in sorted(linked) if pair[0] != "24_claims.ipynb")
    books[name] = {**books[name], "cells": [c for c in books[name]["cells"] if c["id"] != lost]}
    with pytest.raises(InputError, match=lost):
        adapter.linked_cells(books)
