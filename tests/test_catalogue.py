"""The Japanese edition: its catalogues are whole, and what breaks a translation is found."""
import json
import sys
from collections import Counter
from pathlib import Path

import polib
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import catalogue  # noqa: E402
import glossary  # noqa: E402
from editions import EDITIONS, ENGLISH, JAPANESE  # noqa: E402
from project import page  # noqa: E402

PROSE = "## Scales\n\nEvery block of 64 weights has **its** scale, $s = a / 7$; see [bits](00_bits.ipynb) and `absmax`."
JA = "## スケール\n\n64個のブロックは、**スケール**$s = a / 7$を持ちます。[ビット](00_bits.ipynb)と`absmax`を見てください。"
CODE = '''#| collapse: How it is drawn
# The scale of a block,
# and its codes.
def scale(
    block,  # 64 weights
):
    "The largest size."
    return max(map(abs, block))

frame = {"largest of all": scale([1, -3])}  # a row
print(f"{frame['largest of all']:.1f} is the largest of all", "at {}")
'''
INNER = """print(f"{8} {'one' if few else 'all of the matrices'}")"""


def cell(kind: str, text: str, name: str = "c0ffee00") -> dict:
    extra = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "id": name, "metadata": {}, "source": text.splitlines(True), **extra}


def in_japanese(text: str, translations: dict) -> str:
    made = cell("code", text)
    told = catalogue.messages(made, catalogue.literals({"cells": [made]}))
    entries = {("c0ffee00", english): polib.POEntry(msgid=english, msgstr=japanese)
               for english, japanese in translations.items()}
    return catalogue.in_japanese(made, told, entries, [])


def test_every_message_has_a_japanese_of_today():
    assert catalogue.check() == []


def test_the_japanese_notebooks_are_those_of_the_catalogues():
    for path in ENGLISH.files():
        target = JAPANESE.notebooks / path.name
        made, fallen = catalogue.japanese_notebook(
            json.loads(path.read_text(encoding="utf-8")), path.name,
            json.loads(target.read_text(encoding="utf-8")))
        stored = json.loads(target.read_text(encoding="utf-8"))
        assert fallen == [] and [one["id"] for one in made["cells"]] == [one["id"] for one in stored["cells"]]
        if path.stem != "index":  # whose map and table docs/route.py makes
            assert made["cells"] == stored["cells"], path.name
    assert len({len(edition.files()) for edition in EDITIONS}) == 1


@pytest.mark.parametrize(("old", "new", "what"), [
    ("s = a / 7", "s = a / 8", "formula"), ("`absmax`", "絶対最大値", "code"),
    ("00_bits.ipynb", "01_minifloat.ipynb", "link"), ("## ", "### ", "heading"),
    ("64個", "32個", "numbers"), (JA, PROSE, "not translated")])
def test_what_is_no_language_may_not_differ(old, new, what):
    assert catalogue.faults(catalogue.MARKDOWN, PROSE, JA) == []
    assert any(what in fault for fault in catalogue.faults(catalogue.MARKDOWN, PROSE, JA.replace(old, new)))


def test_a_normal_distribution_has_its_own_word():
    assert catalogue.faults(catalogue.COMMENT, "a normal distribution", "正規分布") == []
    assert "正規分布" in catalogue.faults(catalogue.COMMENT, "a normal distribution", "通常分布")[0]


def test_the_messages_of_code_are_what_a_reader_reads():
    made = cell("code", CODE)
    found = [(message.kind, message.text) for message in
             catalogue.messages(made, catalogue.literals({"cells": [made]}))]
    assert found == [
        (catalogue.LABEL, "How it is drawn"), (catalogue.COMMENT, "The scale of a block,\nand its codes."),
        (catalogue.COMMENT, "64 weights"), (catalogue.DOCSTRING, "The largest size."),
        (catalogue.STRING, "largest of all"), (catalogue.COMMENT, "a row"),
        (catalogue.STRING, "{frame['largest of all']:.1f} is the largest of all"),
        (catalogue.STRING, "at {}")] or found


def test_code_in_japanese_is_the_same_code():
    words = {"How it is drawn": "描き方", "The scale of a block,\nand its codes.": "ブロックのスケールと符号",
             "64 weights": "64個の重み", "The largest size.": "最大の大きさ。", "a row": "1行",
             "at {}": "位置{}"}
    japanese = in_japanese(CODE, words)
    made = cell("code", CODE)
    said = catalogue.messages(made, catalogue.literals({"cells": [made]}))
    assert all(text in japanese for text in words.values())
    assert catalogue.same_code(CODE, japanese, said)
    assert not catalogue.same_code(CODE, japanese.replace("-3", "3"), said)
    assert not catalogue.same_code(CODE, japanese.replace("[1, ", "[1 + "), said)


def test_a_string_in_braces_keeps_its_quotes():
    japanese = in_japanese(INNER, {"all of the matrices": "すべての行列"})
    assert japanese == INNER.replace("all of the matrices", "すべての行列")
    assert catalogue.same_code(INNER, japanese, catalogue.messages(cell("code", INNER), Counter(["all of the matrices"])))


def test_a_number_and_a_word_are_a_text_and_a_new_column_has_a_name():
    made = cell("code", '''frame["bits a weight"] = bits
frame["bits"], names = 4, {"16 bits": 2, "nf4": 3, "rank": 4}
print(frame.loc["16 bits", "rank"])
speak("en")
Html("<b>@OWN@</b>", own="infinity")
''')
    counts = catalogue.literals({"cells": [made]})
    assert [message.text for message in catalogue.messages(made, counts)] == [
        "bits a weight", "16 bits", "16 bits", "en", "infinity"]
    japanese = in_japanese(catalogue.source(made), {"bits a weight": "ビット数", "16 bits": "16ビット", "en": "ja",
                                                   "infinity": "無限大"})
    assert japanese.count("16ビット") == 2 and 'speak("ja")' in japanese and 'own="無限大"' in japanese


def test_an_edited_text_makes_its_translation_fuzzy_and_falls_back():
    before, after = cell("markdown", PROSE), cell("markdown", PROSE.replace("has **its**", "keeps **its**"))
    po = catalogue.extracted({"cells": [before]}, catalogue.catalogue("no such page"))
    po[0].msgstr = JA
    fresh = catalogue.extracted({"cells": [after]}, po)
    assert fresh[0].fuzzy and fresh[0].previous_msgid == PROSE and fresh[0].msgstr == JA
    fallen = []
    told = catalogue.messages(after, Counter())
    shown = catalogue.in_japanese(after, told, catalogue.known(fresh), fallen)
    assert shown == catalogue.source(after) and fallen == ["c0ffee00"]


def test_a_removed_cell_takes_its_message_along():
    po = catalogue.extracted({"cells": [cell("markdown", PROSE)]}, catalogue.catalogue("no such page"))
    assert list(catalogue.extracted({"cells": []}, po)) == []


def test_links_of_japanese_notebooks_lead_one_folder_further():
    assert catalogue.relinked("[a](../LICENSE) [b](00_bits.ipynb)") == "[a](../../LICENSE) [b](00_bits.ipynb)"
    assert page("ja/00_bits.ipynb") == "bits"


def test_one_word_for_one_thing():
    english, japanese = (
        "- **absmax** (絶対最大値): The largest size. [chapter 3](03_blockwise.ipynb#fences)\n"
        "- **NF4**: A codebook. [chapter 2](02_nf4.ipynb)\n",
        "- **絶対最大値**（absmax）：最も大きい絶対値。[第3章](03_blockwise.ipynb#fences)\n"
        "- **NF4**：符号表。[第2章](02_nf4.ipynb)\n")
    found = glossary.listed(english)
    assert found == glossary.listed(japanese) == [
        glossary.Term("absmax", "絶対最大値", "03_blockwise.ipynb"), glossary.Term("NF4", "NF4", "02_nf4.ipynb")]
    assert list(glossary.agreement(found, found)) == [] == list(glossary.explained(found))

    other = glossary.Term("absmax", "最大値", "03_blockwise.ipynb")
    same = glossary.Term("largest size", "絶対最大値", "03_blockwise.ipynb")
    for wrong in (other, same):
        assert "one word for one thing" in "".join(glossary.agreement([*found, wrong], [*found, wrong]))
    assert "one edition only" in "".join(glossary.agreement([*found, other], found))
    assert "bits does not use" in "".join(glossary.explained([glossary.Term("absmax", "絶対最大値", "00_bits.ipynb")]))


def test_a_translation_uses_the_word_of_the_glossary():
    terms = [glossary.Term("optimizer", "オプティマイザ", ""), glossary.Term("optimizer state", "オプティマイザの状態", "")]

    def wrong(english, japanese):
        return list(glossary.used(terms, [("here", english, japanese)]))

    assert wrong("Optimizer states in 8 bits", "8ビットのオプティマイザの状態") == []
    assert wrong("An optimizer moves them.", "最適化器が動かす。") == ["here: 'optimizer' is オプティマイザ in this book"]
    assert len(wrong("optimizer states", "オプティマイザ状態")) == 1
    assert wrong("`optimizer` as code, and [a link](12_optimizer.ipynb)", "コードとリンク") == []


def test_the_glossary_is_whole():
    found = glossary.terms(ENGLISH)
    assert len(found) > 70 and found == glossary.terms(JAPANESE)
    assert glossary.EVERYDAY <= {term.english for term in found}
