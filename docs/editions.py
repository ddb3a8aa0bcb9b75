"""The two editions of the book: English, which is the source, and Japanese, which docs/catalogue.py makes.

What the site itself says, on buttons and in heads of tables, is written in English as
`say("…")`, in these tools, in the templates and in site.js; docs/ja/site.po has the Japanese.
"""
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from po import opened, usable
from project import APPENDICES, NBS, PARTS, ROOT, notebooks, settings, site

DOCS = ROOT / "docs"
WORDS = DOCS / "ja" / "site.po"


@dataclass(frozen=True)
class Edition:
    "One language of the book: where its notebooks are, and where its pages go."
    language: str
    notebooks: Path
    prefix: str  # of its addresses on the site
    name: str  # as its readers call it

    @property
    def source(self) -> Path:
        "The folder of the pages that Sphinx reads."
        return DOCS / "_build" / self.language / "source"

    @property
    def html(self) -> Path:
        return DOCS / "_build" / self.language / "html"

    @property
    def site(self) -> str:
        "The address of its front page."
        return site() + self.prefix

    @property
    def space(self) -> str:
        "What stands between two sentences."
        return " " if self.language == "en" else ""

    @property
    def readme(self) -> str:
        return "README.md" if self.language == "en" else f"README.{self.language}.md"

    def files(self) -> list:
        "All notebooks, in the order of their names."
        return notebooks(self.notebooks)

    def say(self, english: str) -> str:
        "Words of the site in this language; English ones where they have no translation yet."
        return english if self.language == "en" else words().get(english) or english


ENGLISH = Edition("en", NBS, "", "English")
JAPANESE = Edition("ja", NBS / "ja", "ja/", "日本語")
EDITIONS = [ENGLISH, JAPANESE]


def edition(language: str) -> Edition:
    return next(one for one in EDITIONS if one.language == language)


@cache
def words() -> dict:
    "English -> Japanese, of what the site itself says."
    return {entry.msgid: entry.msgstr for entry in opened(WORDS) if usable(entry)}


SAID = re.compile(r"""\bsay\(\s*(?:"([^"]+)"|'([^']+)')""")


def in_script() -> list:
    "What site.js says."
    text = (DOCS / "_static" / "site.js").read_text(encoding="utf-8")
    return [double or single for double, single in SAID.findall(text)]


def said() -> list:
    "Everything that the site itself says, in English: the arguments of `say`, the title and the parts."
    found = [settings()["title"], *PARTS.values(), *APPENDICES]
    for path in [*sorted(DOCS.glob("*.py")), *sorted((DOCS / "_templates").glob("*.html"))]:
        if path.name != Path(__file__).name:
            found += [double or single
                      for double, single in SAID.findall(path.read_text(encoding="utf-8"))]
    return list(dict.fromkeys(found + in_script()))
