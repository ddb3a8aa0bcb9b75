"""The way through the book: its chapters in their order, what each asks, needs and takes.

    python docs/route.py               write start, map and table of chapters into nbs/index.ipynb
    python docs/route.py --minutes     print what the chapters take

Everything is read from the notebooks: titles and questions from their openings, what must be read
before from their imports, minutes from their words and their code.
"""
import ast
import json
import re
import sys
from dataclasses import dataclass
from functools import cached_property

import adapter
from colab import is_badge, is_setup
from editions import ENGLISH, Edition
from po import store
from project import APPENDICES, page, part, repository, settings

WORDS, LINES = 200, 15  # that are read in a minute: of prose, of code
START, TABLE, MAP = "<!-- start -->", "<!-- chapters -->", "# The map, from the notebooks"
NEXT, CLOSING = "**Next.** ", "## What we have"


def prose(markdown: str) -> str:
    "The words of a cell, without comments, blocks of code and the addresses of links."
    plain = re.sub(r"<!--.*?-->|^(```|~~~).*?^\1", "", markdown, flags=re.S | re.M)
    return re.sub(r"\]\([^)\s]*\)|[\[|#>*`-]", " ", plain)


def lines(code: str) -> int:
    return sum(bool(line.strip()) and not line.startswith("#|") for line in code.split("\n"))


@dataclass(frozen=True)
class Chapter:
    "One notebook, as a reader meets it."
    name: str  # of its file
    cells: list

    @cached_property
    def markdown(self) -> list:
        return [adapter.text(cell) for cell in self.cells
                if cell["cell_type"] == "markdown" and not is_badge(cell)]

    @cached_property
    def code(self) -> list:
        "Pairs of code and directives, without the cells that prepare Colab."
        found = [(adapter.text(cell), adapter.directives(cell)) for cell in self.cells
                 if cell["cell_type"] == "code" and not is_setup(cell)]
        return [(code, names) for code, names in found
                if "default_exp" not in names and lines(code) and "show_doc(" not in code]

    @property
    def number(self) -> str | None:
        found = re.match(r"\d+", self.name)
        return found and found[0]

    @property
    def module(self) -> str | None:
        return adapter.module({"cells": self.cells})

    @property
    def title(self) -> str:
        return re.match(r"# (.+)", self.markdown[0])[1].strip()

    @property
    def question(self) -> str:
        return re.search(r"^> (.+)$", self.markdown[0], flags=re.M)[1].strip()

    @property
    def words(self) -> int:
        return sum(len(prose(text).split()) for text in self.markdown)

    @property
    def shown(self) -> int:
        "Lines of code that are open on the page and are not exported."
        return sum(opened(code, names) for code, names in self.code
                   if not adapter.EXPORTS & names)

    @property
    def exported(self) -> int:
        "Lines of code that are open on the page and belong to the library."
        return sum(opened(code, names) for code, names in self.code if adapter.EXPORTS & names)

    @property
    def folded(self) -> int:
        "Lines of code that the page shows when it is asked: imports, helpers, proofs."
        return sum(lines(code) - opened(code, names) for code, names in self.code
                   if not names & {"hide", "hide_input"})

    @property
    def minutes(self) -> int:
        return round(self.words / WORDS + (self.shown + self.exported) / LINES)

    @property
    def stretch(self) -> int:
        "The longest run of exported lines between two cells that run something."
        longest = run = 0
        for code, names in self.code:
            if "hide" in names or adapter.folded(re.sub(r"^#\|.*\n?", "", code, flags=re.M)):
                continue
            run = run + lines(code) if adapter.EXPORTS & names else 0
            longest = max(longest, run)
        return longest

    @property
    def next(self) -> str | None:
        "The notebook that the last link behind **Next.** leads to."
        said = [text.partition(NEXT)[2] for text in self.markdown if NEXT in text]
        links = re.findall(r"\]\(([^)\s#]+\.ipynb)", said[-1]) if said else []
        return links[-1] if links else None

    @cached_property
    def imports(self) -> set:
        "The modules of the package that the chapter's code imports."
        package, found = settings()["lib_name"], set()
        for code, _ in self.code:
            for node in adapter.statements(re.sub(r"^[%!].*", "", code, flags=re.M)):
                for item in ast.walk(node):
                    if isinstance(item, ast.ImportFrom) and (item.module or "").startswith(package):
                        module = item.module.removeprefix(package).lstrip(".")
                        found |= {module} if module else {alias.name for alias in item.names}
        return found


def opened(code: str, names: set) -> int:
    "The lines of a cell that are open on its page."
    plain = re.sub(r"^#\|.*\n?", "", code, flags=re.M)
    if names & {"hide", "hide_input", "collapse"} or re.search(r"^#\| *code-fold: true", code, re.M):
        return 0
    if adapter.folded(plain):
        return 0
    return lines(adapter.parted(plain)[0] if adapter.EXPORTS & names else plain)


def book(edition: Edition = ENGLISH) -> dict:
    "Every notebook by its name, numbered chapters first."
    return {name: Chapter(name, nb["cells"]) for name, nb in adapter.library(edition).items()}


def numbered(found: dict) -> list:
    return [chapter for chapter in found.values() if chapter.number]


def needs(found: dict) -> dict:
    "Number -> the numbers of the chapters that must be read before, without those these imply."
    homes = {chapter.module: chapter for chapter in found.values() if chapter.module}

    def reached(chapter: Chapter, seen: set) -> set:
        "The numbered chapters that a chapter's imports lead to, through appendices too."
        numbers = set()
        for home in filter(None, map(homes.get, chapter.imports)):
            if home.number:
                numbers.add(home.number)
            elif home.name not in seen:
                numbers |= reached(home, seen | {home.name})
        return numbers

    direct, whole = {}, {}
    for chapter in numbered(found):
        before = {number for number in reached(chapter, set()) if number < chapter.number}
        implied = set().union(*(whole[number] for number in before))
        direct[chapter.number], whole[chapter.number] = sorted(before - implied), before | implied
    return direct


def report(found: dict) -> str:
    "What the chapters take, as text."
    rows = [f"{'':24}{'words':>7}{'code':>6}{'export':>8}{'folded':>8}{'minutes':>9}{'stretch':>9}"]
    for chapter in found.values():
        rows.append(f"{chapter.name.removesuffix('.ipynb'):24}{chapter.words:7}{chapter.shown:6}"
                    f"{chapter.exported:8}{chapter.folded:8}{chapter.minutes:9}{chapter.stretch:9}")
    total = sum(chapter.minutes for chapter in numbered(found))
    rows.append(f"\n{total / 60:.1f} hours for the numbered chapters: {WORDS} words or {LINES} lines "
                "of open code a minute.\nstretch: the longest run of exported lines between two "
                "cells that run something.")
    return "\n".join(rows)


def table(found: dict, edition: Edition = ENGLISH) -> str:
    "The chapters and the appendices as markdown, with links to the notebooks."
    before, above, say = needs(found), None, edition.say
    minutes = {chapter.name: chapter.minutes for chapter in book().values()}  # words are counted there
    heads = [say("part"), say("chapter"), say("its question"), say("builds on"), say("minutes")]
    rows = [TABLE, f"| {' | '.join(heads)} |", "|---|---|---|---|---|"]
    for chapter in numbered(found):
        name = part(chapter.name)
        rows.append(f"| {edition.say(name) if name != above else ''} | {chapter.number} · "
                    f"[{chapter.title}]({chapter.name}) | {chapter.question} | "
                    f"{', '.join(before[chapter.number])} | "
                    f"{5 * max(1, round(minutes[chapter.name] / 5))} |")
        above = name
    rows += ["", say("The appendices are engineering: read one when you need it."), "",
             f"| {say('part')} | {say('appendix')} | {say('its question')} |", "|---|---|---|"]
    homes = {page(chapter.name): chapter for chapter in found.values()}
    for name, pages in APPENDICES.items():
        rows += [f"| {say(name) if one == pages[0] else ''} | [{homes[one].title}]({homes[one].name}) | "
                 f"{homes[one].question} |" for one in pages]
    return "\n".join(rows)


def start(edition: Edition = ENGLISH) -> str:
    "The lines that bring the book onto a machine, as markdown."
    found = settings()
    return (f"{START}\n## {edition.say('Start')}\n\n```bash\ngit clone {repository()}\ncd {found['repo']}\n"
            "make finetune\n```")


# What the index shows as code: a part of the book is a box, and arrows say what it builds on.
DRAWING = '''#| hide_input
{mark}
from qlora_nb.plots import PALETTE, Drawing

parts = {parts}
arrows = {arrows}
places = {{name: (2 + 300 * (i % 3), 2 + 190 * (i // 3)) for i, name in enumerate(parts)}}
book = Drawing(874, 365, {title!r}
               + "; ".join(f"{{name}}: " + ", ".join(title for _, title, _ in chapters)
                           for name, chapters in parts.items()))
boxes = {{name: book.box(*places[name], 270, 48 + 20 * len(parts[name]), color=color)
         for name, color in zip(parts, PALETTE)}}
for name, chapters in parts.items():
    x, y = places[name]
    book.text(x + 12, y + 20, name, anchor="start", size=16)
    for i, (number, title, notebook) in enumerate(chapters):
        book.parts.append(f'<a href="{{notebook}}">')
        book.text(x + 12, y + 46 + 20 * i, f"{{number}}  {{title}}", anchor="start")
        book.parts.append("</a>")
for a, b in arrows:
    start, end = boxes[a], boxes[b]
    if start.y == end.y and start.x < end.x:
        y = start.y + 24
        book.arrow((start.x + 270, y), (end.x, y))
    elif start.x == end.x:
        book.arrow((start.x + 135, start.y + start.height), (end.x + 135, end.y))
    else:  # to the next row, through the gap between the two
        middle = end.y - 14
        book.arrow((start.x + 60, start.y + start.height), (start.x + 60, middle),
                   (end.x + 100, middle), (end.x + 100, end.y))
book'''


def drawing(found: dict, edition: Edition = ENGLISH) -> str:
    "The code that draws the map of the book."
    parts, arrows, before = {}, [], needs(found)
    for chapter in numbered(found):
        home = part(chapter.name)
        parts.setdefault(home, []).append((chapter.number, chapter.title, chapter.name))
        for number in before[chapter.number]:
            other = next(part(c.name) for c in numbered(found) if c.number == number)
            if other != home and (other, home) not in arrows:
                arrows.append((other, home))
    ways = set(arrows)
    for c in parts:  # what can be reached by more than one arrow, too
        ways |= {(a, b) for a in parts for b in parts if (a, c) in ways and (c, b) in ways}
    arrows = [(a, b) for a, b in arrows if not any((a, c) in ways and (c, b) in ways for c in parts)]
    rows = [f"    {edition.say(name)!r}: [\n" + "".join(f"        {row!r},\n" for row in chapters) + "    ],\n"
            for name, chapters in parts.items()]
    pairs = "".join(f"    {tuple(map(edition.say, pair))!r},\n" for pair in arrows)
    title = edition.say("The map of the book, chapter by chapter") + ": "
    return DRAWING.format(mark=MAP, title=title, parts="{\n" + "".join(rows) + "}", arrows=f"[\n{pairs}]")


def shown(code: str) -> list:
    "The output of the code that draws the map."
    names: dict = {}
    exec(code, names)
    picture = names["book"]
    return [{"data": {"text/html": picture._repr_html_().splitlines(keepends=True),
                      "text/plain": [repr(picture)]},
             "execution_count": None, "metadata": {}, "output_type": "execute_result"}]


def filled(nb: dict, found: dict, edition: Edition = ENGLISH) -> dict:
    "The index with the start, the map and the table of today in the cells that bear their marks."
    made, cells = {START: start(edition), TABLE: table(found, edition)}, []
    for cell in nb["cells"]:
        text = adapter.text(cell)
        words = next((words for mark, words in made.items() if text.startswith(mark)), None)
        if MAP in text.split("\n"):
            words = drawing(found, edition)
            cell = {**cell, "outputs": shown(words)}
        cells.append({**cell, "source": words.splitlines(keepends=True)} if words else cell)
    return {**nb, "cells": cells}


def fill(edition: Edition) -> None:
    "Write start, map and table into the index of an edition."
    path = edition.notebooks / "index.ipynb"
    nb = filled(json.loads(path.read_text(encoding="utf-8")), book(edition), edition)
    store(path, json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + "\n")


def main() -> int:
    if "--minutes" in sys.argv[1:]:
        print(report(book()))
    else:
        fill(ENGLISH)
    return 0


if __name__ == "__main__":
    sys.exit(main())
