"""Verdicts: the stored ones are the authors', and a file of one's own is read or refused in a sentence."""
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qlora_nb.core import InputError, stored_result
from qlora_nb.judges import (
    agreement, both_orders, elo, make_verdicts, place_counts, rate, read_verdicts, stored_verdicts,
)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import verdicts as script  # noqa: E402


def rows(*wins, question="1"):
    "Rows of (first, second, verdict)."
    return [{"question_id": question, "model_a": a, "model_b": b, "verdict": v} for a, b, v in wins]


def authors_file(name: str) -> Path | None:
    "A CSV of all verdicts: in the folder QLORA_NB_DATA, or in a folder shared/data above the checkout."
    folders = [parent / "shared" / "data" for parent in ROOT.parents]
    if os.environ.get("QLORA_NB_DATA"):
        folders.insert(0, Path(os.environ["QLORA_NB_DATA"]))
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


@pytest.mark.parametrize("name, file, counts", [
    ("guanaco", "guanaco_vicuna_judgements.csv", (2512, 1355, 600, 13)),
    ("ja", "ja_vicuna_judgements.csv", (444, 483, 33, 0))])
def test_the_stored_verdicts_are_the_authors(name, file, counts):
    stored = stored_verdicts(name)
    assert tuple(place_counts(stored).values()) == counts
    if path := authors_file(file):
        assert stored_result("verdicts")[name]["verdicts"] == script.packed(script.of_csv(path))
        read = read_verdicts(path)
        assert (read.systems, place_counts(read)) == (stored.systems, place_counts(stored))
        assert rate(read, 2).place == pytest.approx(rate(stored, 2).place)


def test_the_authors_files_become_verdicts():
    "Their layout: one review a line in QLoRA's, two games a line in FastChat's."
    reviews = "\n".join(json.dumps({"review_id": "x", "question_id": n, "score": score, "text": "…"})
                        for n, score in [(2, 3), (1, 1), (3, -1)])
    name = "30b-oassist-vicuna-generations-topp0.9-beam1-vs-answer-gpt35-gpt-4-reviewer-threeclass.jsonl"
    assert script.packed(script.guanaco_verdicts({name: reviews})) == {"Guanaco-33B|ChatGPT-3.5": "13-"}
    games = "\n".join(json.dumps({"question_id": n, "model_1": "a", "model_2": "b", "g1_winner": one,
                                  "g2_winner": other}) for n, one, other in [
        (1, "model_2", "model_2"), (2, "tie", "model_1"), (3, "error", "model_2")])
    assert script.packed(script.ja_verdicts({"x.jsonl": games})) == {"a|b": "23-", "b|a": "121"}
    scores = "\n".join(json.dumps({"question_id": n, "score": s}) for n, s in [(2, [8, 7]), (1, [9, 8.5])])
    assert script.score_pairs({"answer-bard-vs-gpt-3.5-gpt4-reviewer.jsonl": scores}) == {
        "Bard|ChatGPT-3.5": "9/8.5 8/7"}
    with pytest.raises(ValueError, match="no system is known"):
        script.pair_of("somebody-vs-answer-bard-gpt-4-reviewer-threeclass.jsonl")


@pytest.mark.parametrize("text, says", [
    ("question_id,model_a,verdict\n1,a,1\n", "no model_b"),
    ("question_id,model_a,model_b,verdict\n1,a,b,5\n", "the verdict '5'"),
    ("question_id,model_a,model_b,verdict\n1,a,a,1\n", "a with itself"),
    ("question_id,model_a,model_b,verdict\n1,a,,1\n", "no model_b"),
    ("question_id,model_a,model_b,verdict\n1,a,b,-1\n", "no readable verdict"),
    ("question_id,model_a,model_b,verdict\n1,a,b,1\n1,a,b,1\n", "1 duplicate"),
    ("question_id,model_a,model_b,verdict\n", "no row")])
def test_a_file_that_holds_no_verdicts_is_refused_in_a_sentence(tmp_path, text, says):
    path = tmp_path / "v.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=says) as error:
        read_verdicts(path)
    assert "v.csv" in str(error.value) and "\n" not in str(error.value)


def test_a_file_may_be_jsonl_and_hold_more_columns(tmp_path):
    path = tmp_path / "v.jsonl"
    found = rows(("b", "a", 1), ("a", "b", 3)) + rows(("a", "b", 2), question="2")
    path.write_text("\n".join(json.dumps(row | {"judge": "me"}) for row in found), encoding="utf-8")
    verdicts = read_verdicts(path)
    assert verdicts.systems == ["a", "b"] and verdicts.questions == ["1", "2"]
    assert verdicts.score.tolist() == [1, .5, 0] and verdicts.first.tolist() == [1, 0, 0]


def test_who_never_lost_has_no_rating_without_a_prior():
    pair = make_verdicts(rows(("a", "b", 1), ("b", "a", 2)))
    with pytest.raises(InputError, match="never won a point; give a prior"):
        rate(pair)
    rated = rate(pair, prior=0.5)
    assert rated.difference("a", "b").value > 50 and rated.interval("a").value > 1000
    # Finite in the verdicts, but not where questions are drawn anew: one question has b's only point.
    several = make_verdicts([row for n in range(9) for row in rows(
        ("a", "b", 2 if n == 0 else 1), ("b", "a", 1 if n == 0 else 2), question=str(n))])
    with pytest.raises(InputError, match="questions are drawn anew"):
        rate(several)
    assert rate(several, prior=0.1).difference("a", "b").low > 0


def test_ties_alone_leave_everyone_in_the_middle():
    ties = make_verdicts(rows(("a", "b", 3), ("b", "a", 3), ("a", "c", 3), ("c", "b", 3)))
    rated = rate(ties, 20)
    assert np.allclose(rated.ratings, 1000) and rated.place == 0
    assert np.allclose(elo(ties, 5), 1000)
    with pytest.raises(InputError, match="every label is 0.5"):
        agreement(both_orders(ties))


def test_a_system_is_rated_without_ties_and_elo_sums_to_its_start():
    wins = make_verdicts(rows(("a", "b", 1), ("b", "a", 1), ("a", "b", 2), ("b", "a", 1)))
    rated = rate(wins, prior=0.1)
    assert rated.difference("b", "a").value > 0 and rated.place > 0
    assert np.allclose(elo(wins, 7).sum(1), 2000) and elo(wins, 7, start=0).sum() == pytest.approx(0)


def test_names_in_another_order_change_nothing_but_the_order():
    stored = stored_verdicts("guanaco")
    turned = replace(stored, systems=stored.systems[::-1], first=7 - stored.first, second=7 - stored.second)
    assert np.allclose(rate(stored, 2).ratings, rate(turned, 2).ratings[::-1], atol=1e-5)
    assert agreement(both_orders(stored)) == pytest.approx(agreement(both_orders(turned)))


def test_the_stored_result_is_small_and_says_whose_it_is():
    path = ROOT / "benchmarks" / "results" / "verdicts.json"
    if path.is_file():
        assert path.stat().st_size < 15_000
    stored = stored_result("verdicts")
    assert "MIT" in stored["guanaco"]["licence"] and stored["ja"]["licence"] == "Apache-2.0"
