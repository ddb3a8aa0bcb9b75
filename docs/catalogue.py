"""The Japanese edition: gettext catalogues of what a reader reads, and the notebooks made with them.

    python docs/catalogue.py extract     take what is new or changed in nbs/ into docs/ja/*.po
    python docs/catalogue.py check       say what is missing, stale or broken, and where a word of the glossary
                                         has another translation; exit with 1 if anything is
    python docs/catalogue.py build       write nbs/ja/*.ipynb and qlora_nb/data/ja.json

A message is what is read in one piece: a markdown cell, and of a code cell each comment, docstring,
label of a fold and string that is shown. Its context (msgctxt) is the cell's id. Where an English
text changes, its translation becomes fuzzy; the build then shows the English text, and says so.

A translation may not differ from its original in what is no language: formulae, code spans, targets
of links, levels of headings, numbers, placeholders. Code must stay the same tree but for its
messages.
"""
import ast
import difflib
import io
import json
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import polib

import colab
import command
import glossary
import route
from editions import JAPANESE, WORDS, said
from po import fresh, opened, store, usable
from project import notebooks, page

CATALOGUES, EDITION = WORDS.parent, JAPANESE.notebooks
MARKDOWN, COMMENT, DOCSTRING, LABEL, STRING = "markdown", "comment", "docstring", "label", "string"
# Calls and keywords whose strings are read, even those of one word; and those whose never are.
SHOWN = {"print", "title", "suptitle", "set_title", "set_xlabel", "set_ylabel", "text", "annotate",
         "xlabel", "ylabel", "zlabel", "label", "box", "arrow", "Drawing", "Slider", "rename_axis",
         "xticklabels", "yticklabels", "labels", "begin", "where", "claims_table", "counted",
         "read_claims", "Html", "speak"}
UNSEEN = {"loc", "textcoords", "contains", "test_eq", "test_fail", "encode", "write_text", "search",
          "sub", "findall", "match", "split", "partition", "replace", "suffixes", "cell", "ja",
          "TemplateProcessing", "color", "tokenizer", "run", "run_line_magic", "filterwarnings"}
CODE = re.compile(r"(^(?:```|~~~)[^\n]*\n.*?^(?:```|~~~)[^\n]*$|(?<!`)(`+)(?!`)[^\n]*?(?<!`)\2(?!`))",
                  flags=re.M | re.S)
FORMULA = re.compile(r"(?<![\\$])(\$\$.+?\$\$|\$(?=\S)[^$\n]+?(?<=\S)\$(?!\d))", flags=re.S)
EXPORT, SHARED = r"^#\|\s*export[si]?\b", -1
LITERAL = re.compile(r"""([rRbBfFuU]{0,2})(\"{3}|'{3}|"|')((?:\\.|.)*?)\2""", flags=re.S)
ESCAPED = {"n": "\n", "t": "\t", '"': '"', "'": "'", "\\": "\\", "\n": ""}
# Words of one letter case that a call takes by position: colours, and places of a text.
NAMES = {"blue", "orange", "green", "red", "grey", "purple", "yellow", "sky", "black", "white",
         "center", "left", "right", "top", "bottom", "start", "end", "middle", "both", "log"}
MARKUP = re.compile(r"""<[/\w]|&\w+;|\w="|^[\w.-]*/|https?:""")
COUNTED = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
           "fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty "
           "ninety hundred hundreds thousand thousands million millions billion billions half halves "
           "quarter quarters third thirds fourth fifth sixth eighth tenth tenths hundredth first second "
           "once twice both single double dozen pair neither last each every per cent percent a an").split()


# --- what a reader reads -------------------------------------------------------------------------

@dataclass(frozen=True)
class Message:
    "A piece of a cell's text: from `start` to `end`, in letters."
    kind: str
    text: str
    start: int
    end: int
    indent: str = ""


def source(cell: dict) -> str:
    return "".join(cell["source"])


def translated(cell: dict) -> bool:
    "Whether a cell says anything to a reader that is not made by a script."
    text = source(cell)
    if colab.is_badge(cell) or colab.is_setup(cell) or not text.strip():
        return False
    if {route.START, route.TABLE, route.MAP}.intersection(text.split("\n")[:3]):
        return False  # docs/route.py makes it anew, in either language
    return cell["cell_type"] == "markdown" or cell["cell_type"] == "code" and not re.match(
        r"#\|\s*(hide\s*$|default_exp)", text, flags=re.M)


def messages(cell: dict, counts: Counter) -> list:
    "The messages of a cell; `counts` says how often the notebook's code has each string."
    text = source(cell)
    if not translated(cell):
        return []
    if cell["cell_type"] == "markdown":
        return [Message(MARKDOWN, text, 0, len(text))]
    try:
        tree = ast.parse(text)
    except SyntaxError:  # magics
        return []
    found = [*labels(text), *comments(text), *docstrings(text, tree)]
    if not re.search(EXPORT, text, flags=re.M):
        found += strings(text, tree, counts)
    return sorted((message for message in found if words(message.text)), key=lambda m: m.start)


def words(text: str) -> list:
    return re.findall(r"[A-Za-z]{2,}", text)


def labels(text: str) -> Iterator[Message]:
    for match in re.finditer(r"^#\|\s*collapse:\s*(.+)$", text, flags=re.M):
        yield Message(LABEL, match[1], *match.span(1))


def comments(text: str) -> Iterator[Message]:
    "Comments; those on lines of their own, under each other, are one message."
    starts, block = line_starts(text), []

    def whole():
        first, last = block[0], block[-1]
        said = "\n".join(token.string.lstrip("#").strip() for token in block)
        indent = first.line[:first.start[1]] if not first.line[:first.start[1]].strip() else ""
        return Message(COMMENT, said, starts[first.start[0] - 1] + first.start[1],
                       starts[last.end[0] - 1] + last.end[1], indent)

    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT or re.match(r"#\||#\s*(noqa|type:|%)", token.string):
            continue
        own = not token.line[:token.start[1]].strip()
        follows = block and own and token.start == (block[-1].start[0] + 1, block[-1].start[1]) \
            and not block[0].line[:block[0].start[1]].strip()
        if block and not follows:
            yield whole()
            block = []
        block = [*block, token]
    if block:
        yield whole()


def docstrings(text: str, tree: ast.AST) -> Iterator[Message]:
    for node in ast.walk(tree):
        place = docstring(node)
        if place is not None:
            start, end = span(text, place)
            indent = " " * place.col_offset
            yield Message(DOCSTRING, undented(place.value), start, end, indent)


def docstring(node: ast.AST) -> ast.Constant | None:
    "The literal that describes a function or a class."
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.body:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) \
                and isinstance(first.value.value, str):
            return first.value
    return None


def undented(text: str) -> str:
    "A docstring without the indentation of its later lines and the line of its closing quotes."
    first, mark, rest = text.partition("\n")
    lines = rest.split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return (first + mark + "\n".join(line[margin:] for line in lines)).rstrip()


def strings(text: str, tree: ast.AST, counts: Counter) -> Iterator[Message]:
    "The strings that a cell shows."
    skipped = {id(place) for node in ast.walk(tree) if (place := docstring(node))}

    def visit(node: ast.AST, shown: bool) -> Iterator[ast.AST]:
        if isinstance(node, ast.Import | ast.ImportFrom) or id(node) in skipped:
            return
        if isinstance(node, ast.Assert | ast.Subscript) or isinstance(node, ast.Call) and called(
                node) in UNSEEN:
            yield from filter(shared, ast.walk(node))
            if isinstance(node, ast.Subscript):
                yield from visit(node.value, shown)
            return
        if isinstance(node, ast.Constant | ast.JoinedStr):
            if readable(node, shown, counts) or shared(node):
                yield node
            if isinstance(node, ast.Constant):
                return
        if isinstance(node, ast.Compare | ast.FormattedValue):  # looked for, not shown
            shown = False
        if isinstance(node, ast.Call):
            name = called(node)
            yield from visit(node.func, shown)
            for argument in node.args:
                yield from visit(argument, shown or name in SHOWN)
            for pair in node.keywords:
                if pair.arg not in UNSEEN:
                    yield from visit(pair.value, pair.arg in SHOWN or name in SHOWN - {"print"}
                                     and pair.arg not in ("color", "anchor", "ha", "va"))
            return
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Subscript):  # the name of a new column
                yield from visit(target.slice, False)
        for child in ast.iter_child_nodes(node):
            if not isinstance(node, ast.JoinedStr) or isinstance(child, ast.FormattedValue):
                yield from visit(child, shown)

    def shared(node: ast.AST) -> bool:
        return isinstance(node, ast.Constant) and isinstance(node.value, str) \
            and counts[node.value] == SHARED

    found = list({id(node): node for node in visit(tree, False)}.values())
    inner = {id(child) for node in found if isinstance(node, ast.JoinedStr)
             for child in ast.walk(node) if child is not node}
    for node in found:
        if id(node) not in inner:  # a string in another's placeholder stays as it is
            start, end = span(text, node)
            yield Message(STRING, template(text[start:end]), start, end)


def called(node: ast.Call) -> str:
    "The last name of what is called."
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def readable(node: ast.AST, shown: bool, counts: Counter) -> bool:
    "Whether a literal is prose. One that no call shows must be of two words, and nothing may look it up."
    if isinstance(node, ast.Constant) and not isinstance(node.value, str):
        return False
    said = fixed(node)
    if not words(said) or said in NAMES or MARKUP.search(said):
        return False
    if shown:
        return True
    once = isinstance(node, ast.JoinedStr) or counts[node.value] == 1
    return once and several(said)


def several(said: str) -> bool:
    "Whether a text is of two words, or of a number and a word."
    return " " in said.strip() and len(re.findall(r"[A-Za-z]{2,}|(?<!\S)\d[\d.,]*(?= )", said)) > 1


def fixed(node: ast.AST) -> str:
    "The letters of a string or an f-string, without what stands in braces."
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(part.value for part in node.values if isinstance(part, ast.Constant))


def template(written: str) -> str:
    "What one types between the quotes of a literal, given with them; neighbours are joined."
    pieces = LITERAL.findall(written)
    formatted = any("f" in prefix.lower() for prefix, _, _ in pieces)
    said = []
    for prefix, _, inner in pieces:
        if "r" not in prefix.lower():
            inner = re.sub(r"\\(\n|.)", lambda match: ESCAPED.get(match[1], match[0]), inner)
        if formatted and "f" not in prefix.lower():
            inner = inner.replace("{", "{{").replace("}", "}}")
        said.append(inner)
    return "".join(said)


def literals(nb: dict) -> Counter:
    """How often each string occurs in a notebook's code.

    One that is shown somewhere and used elsewhere, but not by the library, is counted as SHARED:
    such a name of a column or a row is translated wherever it occurs, so that it is still found.
    """
    counts: Counter = Counter()
    exported, shown = set(), set()
    for cell in nb["cells"]:
        tree = parsed(source(cell) if cell["cell_type"] == "code" else "")
        found = constants(tree)
        counts.update(found)
        if re.search(EXPORT, source(cell), flags=re.M):
            exported.update(found)
        elif translated(cell):
            shown |= {message.text for message in strings(source(cell), tree, defaultdict(lambda: 1))}
    for text in shown - exported:
        if counts[text] > 1 and several(text):
            counts[text] = SHARED
    return counts


def parsed(text: str) -> ast.Module:
    "The syntax tree of a cell; an empty one where it is not plain Python, as magics are not."
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module([], [])


def constants(tree: ast.AST) -> list:
    "The strings that stand in code, as often as they do."
    return [node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def line_starts(text: str) -> list:
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts


def span(text: str, node: ast.AST) -> tuple:
    "Where a node begins and ends; syntax trees count a line's bytes."
    lines, starts = text.split("\n"), line_starts(text)

    def place(line, offset):
        return starts[line - 1] + len(lines[line - 1].encode()[:offset].decode())
    return (place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset))


# --- the catalogues ------------------------------------------------------------------------------

def catalogue(name: str) -> polib.POFile:
    "The catalogue of a page; an empty one if it has none yet."
    return opened(CATALOGUES / f"{name}.po")


def known(po: polib.POFile) -> dict:
    "Context and English text -> entry."
    return {(entry.msgctxt, entry.msgid): entry for entry in po if not entry.obsolete}


def extracted(nb: dict, old: polib.POFile) -> polib.POFile:
    "The catalogue of today's messages, with every translation of the old one that still has a place."
    counts, before, entries = literals(nb), known(old), {}
    for cell in nb["cells"]:
        for message in messages(cell, counts):
            key = (cell["id"], message.text)
            if key not in entries:
                entries[key] = before.pop(key, None) or polib.POEntry(
                    msgctxt=cell["id"], msgid=message.text)
                entries[key].comment = message.kind
    for key, entry in entries.items():
        if not entry.msgstr:  # it may be another text's successor
            near = [(difflib.SequenceMatcher(None, text, key[1], autojunk=False).ratio(), context, text)
                    for context, text in before if before[context, text].msgstr
                    and (context == key[0] or text == key[1])]
            ratio, *best = max(near, default=(0,))
            if ratio == 1 and best[1] == key[1]:  # the same words in another cell
                entry.msgstr = before[tuple(best)].msgstr
            elif ratio > 0.5 or best and entry.comment == MARKDOWN:
                former = before.pop(tuple(best))
                entry.msgstr, entry.previous_msgid = former.msgstr, former.previous_msgid or best[1]
                entry.flags = ["fuzzy"]
    return fresh(entries.values())


def extract() -> None:
    CATALOGUES.mkdir(exist_ok=True)
    for path in notebooks():
        nb = json.loads(path.read_text(encoding="utf-8"))
        name = page(path.name)
        store(CATALOGUES / f"{name}.po", str(extracted(nb, catalogue(name))) + "\n")
    store(WORDS, str(site_words()) + "\n")
    command.extract()
    names = {page(path.name) for path in notebooks()} | {WORDS.stem, command.CATALOGUE.stem}
    for path in CATALOGUES.glob("*.po"):
        if path.stem not in names:
            path.unlink()


def site_words() -> polib.POFile:
    "The catalogue of what the site itself says, with its translations so far."
    before = {entry.msgid: entry for entry in catalogue(WORDS.stem)}
    return fresh(before.get(english) or polib.POEntry(msgid=english) for english in said())


# --- what may not differ -------------------------------------------------------------------------

def parts(markdown: str) -> dict:
    "What of a markdown text is the same in every language: name -> how often each piece occurs."
    code = [match[0] for match in CODE.finditer(markdown)]
    plain = CODE.sub(" ", markdown)
    formulae = FORMULA.findall(plain)
    plain = FORMULA.sub(" ", plain)
    targets = re.findall(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)", plain)
    plain = re.sub(r"\]\([^)]*\)|https?://\S+|<!--.*?-->", " ", plain, flags=re.S)
    headings = re.findall(r"^(#+) ", plain, flags=re.M)
    return {"code": Counter(code), "formula": Counter(formulae), "link": Counter(targets),
            "heading": headings, "markup": Counter(re.findall(r"</?[a-z][^>]*>", plain)),
            "figure": len(re.findall(r"^\*(?:Figure|図): ", plain, flags=re.M)),
            "list": len(re.findall(r"^\s*(?:[-*]|\d+\.) ", plain, flags=re.M)),
            "table": len(re.findall(r"^\|", plain, flags=re.M))}


UNITS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "万": 10**4, "億": 10**8, "兆": 10**12}


def numbers(text: str) -> Counter:
    "The numbers of a text's prose: 3.6 billion is 36億."
    plain = CODE.sub(" ", FORMULA.sub(" ", re.sub(r"\]\([^)]*\)|https?://\S+", "] ", text)))
    plain = plain.translate({0xFF10 + i: str(i) for i in range(10)})  # Japanese may widen its digits
    plain = re.sub(r"(\d[\d.]*) (to|and|or|of its) (\d[\d.]*) (thousand|million|billion)",
                   r"\1 \4 \2 \3 \4", plain)
    plain = re.sub(r"(\d+)億([\d,]+)万",
                   lambda both: f"{10**4 * int(both[1]) + int(both[2].replace(',', ''))}万", plain)
    found = re.findall(rf"(?<![\d.])(\d+(?:,\d{{3}})*(?:\.\d+)?)[ -]?({'|'.join(UNITS)})?", plain)
    return Counter(f"{float(number.replace(',', '')) * UNITS.get(unit, 1):.12g}" for number, unit in found)


def faults(kind: str, english: str, japanese: str) -> list:
    "What a translation changed that is no language."
    found = []
    if kind == MARKDOWN:
        ours, theirs = parts(english), parts(japanese)
        for name, before in ours.items():
            after = theirs[name]
            if before != after:
                if isinstance(before, Counter):
                    lost, added = list((before - after).elements()), list((after - before).elements())
                    before, after = lost, added
                found.append(f"{name}: {before} became {after}")
        if english == japanese and re.search(r"[a-z]{3,} [a-z]{3,}", CODE.sub("", english)):
            found.append("is not translated")
    if kind == STRING and "{" in english + japanese:
        before, after = placeholders(english), placeholders(japanese)
        if before != after:
            found.append(f"placeholders differ: {re.findall(r'{[^{}]*}', english)} became "
                         f"{re.findall(r'{[^{}]*}', japanese)}")
    if kind in (COMMENT, DOCSTRING, LABEL):
        spans = [Counter(match[0] for match in CODE.finditer(text)) for text in (english, japanese)]
        if spans[0] != spans[1]:
            found.append(f"code: {list((spans[0] - spans[1]).elements())} became "
                         f"{list((spans[1] - spans[0]).elements())}")
    before, after = numbers(english), numbers(japanese)
    spelled = [word for word in re.findall(r"[a-z]+", english.lower()) if word in COUNTED]
    lost, added = before - after, after - before
    # "two" may become 2: as many numbers may be new as words count.
    if lost or sum(added.values()) > len(spelled):
        found.append(f"numbers: {list(lost.elements())} became {list(added.elements())}")
    if re.search("通常分布", japanese) and "通常分布" not in english:
        found.append("通常分布: a normal distribution is 正規分布")
    return found


def placeholders(text: str) -> Counter:
    "What stands in the braces of an f-string's text; none where the text is no f-string's."
    tree = formatted(text)
    return placed(tree)


def formatted(text: str) -> ast.AST | None:
    "The syntax tree of an f-string with this text."
    for quote in ("\"\"\"", "'''"):
        try:
            return ast.parse(f"f{quote}{text}{quote}", mode="eval").body
        except SyntaxError:
            continue
    return None


def check() -> list:
    "Sentences on everything that keeps the Japanese edition from being whole."
    wrong = [f"docs/ja/{WORDS.name}: {entry.msgid!r} has no translation of today"
             for entry in site_words() if not entry.msgstr or entry.fuzzy] + command.check()
    pairs = [(f"docs/ja/{path.name}", entry.msgid, entry.msgstr)
             for path in (WORDS, command.CATALOGUE) for entry in opened(path) if usable(entry)]
    for path in notebooks():
        nb, name = json.loads(path.read_text(encoding="utf-8")), page(path.name)
        entries, counts = known(catalogue(name)), literals(nb)
        found = [(cell, messages(cell, counts)) for cell in nb["cells"]]
        wanted = {(cell["id"], message.text): message for cell, told in found for message in told}
        for key, message in wanted.items():
            place, entry = f"docs/ja/{name}.po, cell {key[0]}", entries.get(key)
            start = " ".join(key[1].split())[:50]
            if entry is None or not entry.msgstr:
                wrong.append(f"{place}: {message.kind} {start!r} has no translation")
            elif entry.fuzzy:
                wrong.append(f"{place}: {message.kind} {start!r} has changed since it was translated")
            else:
                pairs.append((place, key[1], entry.msgstr))
                wrong += [f"{place}: {message.kind} {start!r}: {fault}"
                          for fault in faults(message.kind, key[1], entry.msgstr)]
        said = {}
        for (_, text), entry in entries.items():
            if counts[text] == SHARED and said.setdefault(text, entry.msgstr) != entry.msgstr:
                wrong.append(f"docs/ja/{name}.po: {text!r}, which one cell shows and another looks up, "
                             f"is {said[text]!r} and {entry.msgstr!r}")
        wrong += [f"docs/ja/{name}.po, cell {context}: {text[:50]!r} is in no cell any more"
                  for context, text in entries.keys() - wanted.keys()]
        shared = {text for text, japanese in said.items() if japanese != text}
        for cell, told in found:
            if cell["cell_type"] != "code":
                continue
            place, japanese = f"docs/ja/{name}.po, cell {cell['id']}", in_japanese(cell, told, entries, [])
            wrong += [f"{place}: {text!r} stays English here, and is {said[text]!r} elsewhere"
                      for text in shared.intersection(constants(parsed(japanese)))]
            if told and not same_code(source(cell), japanese, told):
                wrong.append(f"{place}: the code is no longer the same")
    return wrong + glossary.check(pairs)


def same_code(english: str, japanese: str, said: list) -> bool:
    "Whether two cells have one syntax tree, but for docstrings and the strings among the messages."
    try:
        ours, theirs = ast.parse(english), ast.parse(japanese)
    except SyntaxError:
        return english == japanese  # a magic, which nobody translated
    places = {message.start for message in said if message.kind == STRING}
    free = {id(node) for node in ast.walk(ours) if isinstance(node, ast.Constant | ast.JoinedStr)
            and hasattr(node, "lineno") and span(english, node)[0] in places}
    return same(ours, theirs, free)


def same(ours, theirs, free: set) -> bool:
    "Whether two trees agree; of strings in `free`, given by id, only what stands in braces has to."
    if id(ours) in free:
        return isinstance(theirs, ast.Constant | ast.JoinedStr) and placed(ours) == placed(theirs)
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(same(a, b, free) for a, b in zip(ours, theirs))
    if not isinstance(ours, ast.AST):
        return ours == theirs
    described = [docstring(node) is not None for node in (ours, theirs)]
    return described[0] == described[1] and all(
        same(getattr(ours, name, None), getattr(theirs, name, None), free)
        if not (name == "body" and described[0]) else same(ours.body[1:], theirs.body[1:], free)
        for name in ours._fields)


def placed(node: ast.AST) -> Counter:
    "What stands in the braces of an f-string."
    return Counter(ast.dump(part) for part in getattr(node, "values", [])
                   if isinstance(part, ast.FormattedValue))


# --- the Japanese notebooks ----------------------------------------------------------------------

def in_japanese(cell: dict, told: list, entries: dict, fallen: list) -> str:
    "The text of a cell in Japanese; what has no translation of today stays, and goes into `fallen`."
    text = source(cell)
    for message in reversed(told):
        entry = entries.get((cell["id"], message.text))
        if entry is None or not usable(entry):
            fallen.append(cell["id"])
        elif entry.msgstr != message.text:
            text = text[:message.start] + written(message, text, entry.msgstr) + text[message.end:]
    return text


def written(message: Message, text: str, japanese: str) -> str:
    "A translation as it is written where the message stood."
    if message.kind == COMMENT:
        return f"\n{message.indent}".join(f"# {line}".rstrip() for line in japanese.split("\n"))
    if message.kind in (MARKDOWN, LABEL):
        return japanese
    former = text[message.start:message.end]
    if message.kind == DOCSTRING:
        body = f"\n{message.indent}".join(japanese.split("\n")).replace(f"\n{message.indent}\n", "\n\n")
        if "\n" not in body and '"' not in body and "\\" not in body:
            return f'"{body}"'
        end = f"\n{message.indent}" if "\n" in body else ""
        return ("r" if "\\" in body else "") + f'"""{body}{end}"""'
    if not any("f" in prefix.lower() for prefix, _, _ in LITERAL.findall(former)):
        said = json.dumps(japanese, ensure_ascii=False)
        if not former.endswith("'"):
            return said
        inner = said[1:-1].replace('\\"', '"').replace("'", "\\'")  # it may be within an f-string's braces
        return f"'{inner}'"
    said = japanese.replace("\\", "\\\\").replace("\n", "\\n")
    for quote in ('"', "'", '"""'):
        try:  # quotes in braces forbid the same ones around them
            if quote not in japanese.replace("{", "") and ast.parse(f"f{quote}{said}{quote}"):
                return f"f{quote}{said}{quote}"
        except SyntaxError:
            continue
    return former


def relinked(text: str) -> str:
    "Links to files beside the folder of notebooks lead one folder further up."
    return re.sub(r"(\]\()(\.\./)", r"\1../\2", text)


def japanese_notebook(nb: dict, name: str, former: dict) -> tuple:
    "A notebook in Japanese, and the ids of cells that are still English in it."
    entries, counts, fallen, cells = known(catalogue(page(name))), literals(nb), [], []
    kept = {cell["id"]: cell for cell in former.get("cells", [])}
    for cell in nb["cells"]:
        text = in_japanese(cell, messages(cell, counts), entries, fallen)
        if cell["cell_type"] == "markdown":
            text = relinked(text)
        made = {**cell, "source": text.splitlines(keepends=True)}
        old = kept.get(cell["id"])
        if old and cell["cell_type"] == "code" and same_code(source(old), text, []):
            made["outputs"] = old["outputs"]  # of the Japanese notebook's own run
        cells.append(made)
    return colab.filled({**nb, "cells": cells}, f"{EDITION.name}/{name}"), list(dict.fromkeys(fallen))


def build() -> list:
    "Write the Japanese notebooks; return sentences on cells that fall back to English."
    EDITION.mkdir(exist_ok=True)
    sentences = []
    for path in notebooks():
        target = EDITION / path.name
        former = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
        nb, fallen = japanese_notebook(json.loads(path.read_text(encoding="utf-8")), path.name, former)
        store(target, json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + "\n")
        if fallen:
            more = f" and {len(fallen) - 3} more" if len(fallen) > 3 else ""
            sentences.append(f"nbs/ja/{path.name}: English in cell {', '.join(fallen[:3])}{more}")
    names = {path.name for path in notebooks()}
    for path in EDITION.glob("*.ipynb"):
        if path.name not in names:
            path.unlink()
    route.fill(JAPANESE)
    command.build()
    return sentences


def main() -> int:
    commands = {"extract": extract, "check": check, "build": build}
    if sys.argv[1:2] == [] or sys.argv[1] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    said = commands[sys.argv[1]]() or []
    print(*said, sep="\n", end="\n" if said else "", file=sys.stderr)
    return int(sys.argv[1] == "check" and bool(said))


if __name__ == "__main__":
    sys.exit(main())
