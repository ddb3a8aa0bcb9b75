"""The way through the book: who follows it meets each chapter once, and sees each proof."""
import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import route  # noqa: E402

BOOK = route.book()
CHAPTERS = route.numbered(BOOK)
NAMES = [chapter.name for chapter in CHAPTERS]


def asserts(code: str) -> bool:
    plain = re.sub(r"^[%!].*", "", code, flags=re.M)
    return any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(plain)))


def test_who_follows_next_meets_each_chapter_once():
    met, at = [], BOOK["index.ipynb"].next
    while at in NAMES:  # the last chapter leads to an appendix
        assert at not in met, f"{met[-1]} leads back to {at}"
        met.append(at)
        at = BOOK[at].next
    assert met == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_chapter_is_read_in_one_sitting(name):
    chapter = BOOK[name]
    assert chapter.minutes <= 45, f"{chapter.minutes} minutes: make two chapters or an appendix of it"
    assert chapter.stretch <= 60, "run something between the exported cells"


@pytest.mark.parametrize("name", NAMES)
def test_a_chapter_opens_and_closes_as_the_others_do(name):
    chapter = BOOK[name]
    assert chapter.title and chapter.question.endswith("?")
    said = "\n\n".join(chapter.markdown)
    heads = re.findall(r"^#+ .*\bhave$", said, flags=re.M)
    assert heads == [route.CLOSING]
    closing = said.partition(route.CLOSING)[2]
    assert re.findall(r"^\*\*Next.*?\*\*", closing, flags=re.M) == [route.NEXT.strip()]
    assert not re.search(r"^\*\*Next", said.partition(route.CLOSING)[0], flags=re.M)


@pytest.mark.parametrize("name", BOOK)
def test_no_proof_is_hidden(name):
    hidden = [code for code, names in BOOK[name].code if names & {"hide", "hide_input"}]
    assert [code for code in hidden if asserts(code)] == []


def test_the_index_lists_what_there_is():
    index = "\n".join(BOOK["index.ipynb"].markdown)
    table = next(text for text in BOOK["index.ipynb"].markdown if text.startswith(route.TABLE))
    assert table == route.table(BOOK), "run: make export"
    assert [name for name in BOOK if name != "index.ipynb" and f"({name})" not in index] == []


def test_a_chapter_builds_on_earlier_ones_only():
    needs = route.needs(BOOK)
    assert list(needs) == [chapter.number for chapter in CHAPTERS]
    assert all(before < number for number, found in needs.items() for before in found)
    assert needs["17"] and needs["08"] and not needs["00"]


def test_lines_and_words_are_counted_as_they_are_read():
    assert route.prose("# A *b* [c d](e/f.md) <!-- x -->\n```\ny z\n```\nend").split() == ["A", "b", "c", "d", "end"]
    cells = ["#| hide\na = 1", "#| collapse: Proof\nassert a\nassert b", "import re",
             "#| export\ndef f():\n    return 1\n\ndef _g():\n    return 2", "#| export\nx = 1",
             "f()", "#| export\ny = 1"]
    chapter = route.Chapter("00_toy.ipynb", [{"cell_type": "code", "source": code} for code in cells])
    assert (chapter.shown, chapter.exported, chapter.folded, chapter.stretch) == (1, 4, 5, 5)
