"""The words of the book: pairs of an English and a Japanese term, as the glossary page says them.

nbs/glossary.ipynb and its catalogue are lists of `- **term** (用語): sentence [place](page)`, and of
`- **用語**（term）：文[場所](page)`. What is checked: both editions name the same pairs, no term has two
translations and no word translates two terms; the place that an item leads to uses the term; and
wherever an English text of the book has the term, its translation has the word.
"""
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from editions import ENGLISH, JAPANESE, Edition
from project import page

NAME = "glossary"
ITEM = re.compile(r"^- \*\*(?P<term>.+?)\*\*(?: \((?P<en>.+?)\)|（(?P<ja>.+?)）)?[:：].*\]\((?P<place>[^)#]+)",
                  flags=re.M)
# Words of everyday English, too: what they translate to depends on what they mean.
EVERYDAY = {"bias", "code", "merge", "packed", "process", "rank", "rating", "recipe", "scaling", "segment", "token"}
UNREAD = re.compile(r"`[^`\n]+`|\$[^$\n]+\$|\]\([^)]*\)|\{[^{}\n]*\}")


@dataclass(frozen=True)
class Term:
    "A word in both languages, and the notebook that explains it."
    english: str
    japanese: str
    place: str

    @property
    def pattern(self) -> str:
        "Finds the English word, in singular or plural."
        return rf"(?<![\w-]){re.escape(self.english)}(?:e?s)?(?![\w-])"

    def kept(self, japanese: str) -> bool:
        "Whether a Japanese text has the word; it may say the English one instead."
        return self.japanese in japanese or self.english.lower() in japanese.lower()


def terms(edition: Edition) -> list:
    "The items of an edition's glossary."
    return listed(text(edition, f"{NAME}.ipynb"))


def listed(markdown: str) -> list:
    found = []
    for item in ITEM.finditer(markdown):
        english = item["ja"] or item["term"]  # in the brackets of the Japanese edition
        japanese = item["term"] if item["ja"] else item["en"] or item["term"]
        found.append(Term(english, japanese, item["place"]))
    return found


@cache
def text(edition: Edition, name: str) -> str:
    "What a reader reads of a notebook: its prose, and its code with comments and labels."
    nb = json.loads((edition.notebooks / name).read_text(encoding="utf-8"))
    return "\n\n".join("".join(cell["source"]) for cell in nb["cells"])


def check(messages: Iterable) -> list:
    "Sentences on what is wrong with the words; `messages` are triples of place, English and Japanese."
    ours, theirs = terms(ENGLISH), terms(JAPANESE)
    return [*agreement(ours, theirs), *explained(ours), *used(ours, messages)]


def agreement(ours: list, theirs: list) -> Iterator[str]:
    "Whether both glossaries say the same, and each thing once."
    for term in {*ours} ^ {*theirs}:
        yield f"glossary: {term.english} ({term.japanese}) is in one edition only"
    for language in ("english", "japanese"):
        words = [getattr(term, language) for term in ours]
        for word in sorted({word for word in words if words.count(word) > 1}):
            pairs = ", ".join(f"{term.english} ({term.japanese})" for term in ours
                              if getattr(term, language) == word)
            yield f"glossary: one word for one thing, not {pairs}"


def explained(found: list) -> Iterator[str]:
    "Whether the place of each term uses it, in both editions."
    for term in found:
        english, japanese = (text(edition, term.place) for edition in (ENGLISH, JAPANESE))
        if not re.search(term.pattern, english, flags=re.I):
            yield f"glossary: {term.english}: {page(term.place)} does not use the term"
        if term.japanese not in japanese:
            yield f"glossary: {term.japanese}: {page(term.place)} does not use the word in Japanese"


def used(found: list, messages: Iterable) -> Iterator[str]:
    "Whether translations use the words."
    longest_first = sorted(found, key=lambda term: -len(term.english))
    for place, english, japanese in messages:
        plain = UNREAD.sub(" ", english)
        for term in longest_first:
            plain, times = re.subn(term.pattern, " ", plain, flags=re.I)
            if times and term.english not in EVERYDAY and not term.kept(japanese):
                yield f"{place}: {term.english!r} is {term.japanese} in this book"
