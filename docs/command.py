"""What the command line says, for docs/catalogue.py: found in qlora_nb/*.py, translated in docs/ja/command.po.

Found are the sentences of errors, the lines of the log, the help texts of options, and what goes
through `spoken` and `all_spoken` of `qlora_nb.language`. An f-string becomes a template: `{name}` stands for
what was put in. What can stand there and is language itself, as the hint behind a semicolon, is a
message of its own; so are the texts in double brackets of an HTML file in the package's data, and the
names that `told` puts into a page's tables. The package reads `qlora_nb/data/ja.json`, which is made from
the catalogue.
"""
import ast
import difflib
import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import polib

from po import fresh, opened, store, usable
from project import ROOT

PACKAGE = ROOT / "qlora_nb"
CATALOGUE = ROOT / "docs" / "ja" / "command.po"
WORDS = PACKAGE / "data" / "ja.json"
# Recognized as a whole; recognized within another sentence; asked for by `spoken`.
SENTENCE, PART, TEXT = "sentence", "part", "text"
# What argparse says after the name of an option.
ARGPARSE = ["expected one argument", "expected at least one argument",
            "ignored explicit argument {value}", "not allowed with argument {option}"]
# Calls with other sentences of errors: the places and names of their arguments that are language.
SAYING = {"saving": (0, 1, "then")}
# Calls that take what is being done, and where among their arguments.
DOING = {"Progress": 0, "watched": 1, "examine": 1}
LOGS = ("log", "logging.getLogger('qlora_nb')")
# What `spoken` is given out of records and ledgers.
NAMES = ["matrices", "constants", "embeddings and head", "norms and biases", "adapter", "gradients",
         "optimizer states", "activations", "working memory", "CUDA context", "put together", "held",
         "held-out", "new phrasing", "exact match", "loss", "finished", "not finished", "damaged", ", ", "; ",
         "holds", "holds with a condition", "does not hold", "cannot be decided here"]
# What `told` finds in the tables of the chapters: names out of records, and what a page looks up itself.
TABLES = ["squared error", "absolute error", "rarest code, %", "commonest, %", "least squared",
          "least absolute", "one a matrix", "shape", "ours", "dtype", "who", "quantize", "copy",
          "dequantize, existing buffer", "dequantize, fresh buffer", "compiled", "eager", "bits",
          "error", "bits, double", "error, double", "block size", "weight", "equal", "count",
          "prompt tuning", "prefix tuning", "bottleneck adapter", "full fine-tuning", "merged",
          "trained", "kept", "lowest", "highest", "merges", "train_loss", "last_train_loss", "gap",
          "exact_match", "base", "seed", "seeds", "compute dtype", "input", "product", "tokens",
          "tokens a second", "role", "trains", "sum", "a hundredth", "converted", "narrow", "random",
          "16-bit base + BA", "dequantized base + BA", "requantized", "way", "live", "backend",
          "all kept", "recomputed", "reentrant", "not reentrant", "predicted", "peak", "moment", "box",
          "frozen", "a layer", "full", "operations", "v became 0", "worst", "best", "state_MB",
          "keeper", "8 bits, dynamic map, blocks of 256", "8 bits, dynamic map, one block",
          "8 bits, linear codes, blocks of 256", "signed", "unsigned", "touches", "first",
          "first touch", "last touch", "weights", "activation", "gradient", "state", "state: faults",
          "state: MB", "state: ms", "out of memory", "one of 8", "alone", "recompute",
          "gradient_checkpointing", "plain words", "kana", "rare kanji", "emoji", "half width",
          "full width", "decomposed", "spaces", "special", "identity", "prefix", "no bytes",
          "line break", "words as symbols", "letters of </s>", "facts", "prefecture", "region",
          "speciality", "capital", "habitat", "diet", "colour", "price", "closed", "job", "home",
          "likes", "birthday", "counter", "opposite", "next", "bigger", "story", "answer", "held out",
          "knowledge", "no knowledge", "needs knowledge", "needs no knowledge", "random weights",
          "padded", "packed", "packed, lean loss", "batch", "NF4 + double quantization", "equivalent",
          "not worse", "not shown", "mean", "low", "high", "p, worse", "p, better", "is", "like",
          "sorted", "seconds_to_first_step", "seconds_per_step", "tokens_per_second", "layers",
          "hidden", "vocabulary", "largest_on_T4", "windows", "pieces", "perplexity", "characters",
          "bootstrap", "a fact", "another", "paper", "rating", "points", "told apart", "second", "tie",
          "batch 16", "batch 4", "rank 8", "rank 1", "rank 64", "products of matrices",
          "dequantized matrices", "norms", "optimizer", "no such town", "256 none", "128 none",
          "64 none", "256 wrong", "256 75% wrong", "256 100% wrong", "256 repeated", "256 foreign",
          "half wrong", "half repeated", "half foreign", "clean", "prompts and answers", "attention",
          "higher", "lower", "not told apart", "right, %", "change", "worse (B.3)", "base_bytes",
          "adapter_bytes", "averaged", "split", "never", "1 Gbit/s Ethernet", "10 Gbit/s Ethernet",
          "GPUs", "1 GPU", "while it runs", "behind it", "constants, always", "20 questions, 95% right",
          "100 questions, 95% right", "300 questions, 90% right", "all matrices", "whole",
          "3.6 billion", "lean", "published", "ledger", "off", "checkpointing", "double", "counted",
          "moments", "rate", "spread", "variant", "quantized", "reloaded", "times full", "8B, grouped",
          "as peft prepares it", "LoRA, 16-bit base", "LoRA, 8-bit base, not reentrant",
          "QLoRA, NF4 base", "token", "position", "label"]
EXPECTED = ["a whole number", "a number", "true or false", "a text"]  # of an option, within an error
TELLING = {"in_one_line"}  # functions whose result another module tells
PLACE = re.compile(r"(?<!\{)\{(\w+)\}(?!\})")


class Module:
    "A module's syntax tree, and the sentences in it."

    def __init__(self, path: Path, errors: set):
        self.path, self.errors = path, errors
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.parts: dict = {}  # fragments: text -> None
        self.seen: set = set()
        self.others: dict = {}  # name of a function -> the module that has it
        self.open: list = []  # names that are being looked up

    @cached_property
    def constants(self) -> dict:
        "Name -> expression, of what is assigned outside of functions."
        return {target.id: node.value for node in self.tree.body if isinstance(node, ast.Assign | ast.AnnAssign)
                for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
                if isinstance(target, ast.Name) and node.value is not None}

    @cached_property
    def functions(self) -> dict:
        return {node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)}

    def calls(self) -> Iterator[tuple]:
        "Each call with the functions around it, the inner one first."
        def visit(node, around):
            if isinstance(node, ast.FunctionDef | ast.Lambda):
                around = (node, *around)
            if isinstance(node, ast.Call):
                yield node, around
            for child in ast.iter_child_nodes(node):
                yield from visit(child, around)
        yield from visit(self.tree, ())

    def found(self) -> Iterator[tuple]:
        "Pairs of a kind and a message."
        for call, around in self.calls():
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            given = {pair.arg: pair.value for pair in call.keywords}
            if name in {*self.errors, "_tell", "retold"} and call.args:
                for text in self.texts(call.args[0], around):
                    yield SENTENCE, text
            elif name == "unknown_name" and call.args:
                for kind in self.texts(call.args[0], around):
                    yield SENTENCE, f"unknown {kind} {{name}}; {{hint}}"
            elif name in SAYING:
                for place in SAYING[name]:
                    part = given.get(place) if isinstance(place, str) else \
                        call.args[place] if place < len(call.args) else None
                    if part is not None:
                        self.fragments(part, around)
            elif isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in LOGS \
                    and call.args and name in ("info", "warning"):
                if isinstance(call.args[0], ast.Constant):
                    yield SENTENCE, logged(call)
                else:
                    self.fragments(call.args[0], around)
            elif name in ("spoken", "all_spoken"):
                for argument in call.args:
                    for text in self.texts(argument, around):
                        yield TEXT, text.replace("{{", "{").replace("}}", "}")
            elif name in DOING and len(call.args) > DOING[name]:
                for text in self.texts(call.args[DOING[name]], around):
                    yield PART, text
            elif name == "drop" and call.args:
                for text in self.texts(call.args[0], around):
                    yield PART, f"{{count}} {text}"
                    yield PART, f"{{count}} {text} (row {{first}})"
            elif name == "append" and getattr(call.func.value, "attr", "") == "notes":
                self.fragments(call.args[0], around)
            elif name == "_option" and self.path.stem == "options":
                for part in [*call.args[1:2], *(given[n] for n in ("group", "off") if n in given)]:
                    yield TEXT, part.value
            elif name == "Command" and self.path.stem == "cli" and len(call.args) > 2:
                yield TEXT, call.args[2].value
                for part in call.args[4:6]:
                    for place in ast.walk(part):
                        if isinstance(place, ast.Tuple) and isinstance(place.elts[-1], ast.Constant):
                            yield TEXT, place.elts[-1].value
        for name in ("_QUESTIONS", "_MODEL", "_DRY") if self.path.stem == "cli" else ():
            yield TEXT, self.constants[name].elts[-1].value
        if self.path.stem == "readers":  # what became of the rows
            for node in ast.walk(self.functions["__str__"]):
                if isinstance(node, ast.JoinedStr):
                    self.take(self.template(node, (self.functions["__str__"],)))
        for text in self.parts:
            yield PART, text

    def texts(self, node: ast.AST, around: tuple) -> list:
        "The templates that an expression can be; [] where it is nothing written here."
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return [braced(node.value)]
        if isinstance(node, ast.JoinedStr):
            return [self.template(node, around)]
        if isinstance(node, ast.IfExp):
            return self.texts(node.body, around) + self.texts(node.orelse, around)
        if isinstance(node, ast.BoolOp):
            return [text for value in node.values for text in self.texts(value, around)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return [a + b for a in self.texts(node.left, around) or ["{more}"]
                    for b in self.texts(node.right, around) or ["{more}"]]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):  # a text or none
            return [*self.texts(node.left, around), ""]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            return [filled(text, [self.texts(argument, around)[0] if isinstance(
                        argument, ast.Constant | ast.JoinedStr) else f"{{{named(argument)}}}"
                        for argument in node.args]) for text in self.texts(node.func.value, around)]
        if isinstance(node, ast.Name) and node.id not in self.open:  # a name may be made of itself
            self.open.append(node.id)
            found = [text for value in self.values(node.id, around) for text in self.texts(value, around)]
            self.open.pop()
            return found
        return []

    def values(self, name: str, around: tuple) -> list:
        "The expressions that a name may stand for."
        found: list = []
        for function in around:
            for node in ast.walk(function):
                if isinstance(node, ast.Assign):
                    for target in node.targets:
                        if isinstance(target, ast.Name) and target.id == name:
                            found.append(node.value)
                        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                            found += [value for one, value in zip(target.elts, node.value.elts)
                                      if isinstance(one, ast.Name) and one.id == name]
                        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.IfExp):
                            for side in (node.value.body, node.value.orelse):
                                found += [value for one, value in zip(target.elts, getattr(side, "elts", []))
                                          if isinstance(one, ast.Name) and one.id == name]
                elif isinstance(node, ast.AugAssign | ast.NamedExpr | ast.AnnAssign) \
                        and isinstance(node.target, ast.Name) and node.target.id == name and node.value:
                    found.append(node.value)
                elif isinstance(node, ast.For | ast.comprehension):
                    rows = node.iter.elts if isinstance(node.iter, ast.List | ast.Tuple) else []
                    for row in rows:
                        if isinstance(node.target, ast.Name) and node.target.id == name:
                            found.append(row)
                        elif isinstance(node.target, ast.Tuple) and isinstance(row, ast.Tuple):
                            found += [value for one, value in zip(node.target.elts, row.elts)
                                      if isinstance(one, ast.Name) and one.id == name]
        return found or [self.constants[name]] if found or name in self.constants else []

    def template(self, node: ast.JoinedStr, around: tuple) -> str:
        "An f-string with names in its braces; what can stand there becomes fragments."
        said, names = [], {}
        for part in node.values:
            if isinstance(part, ast.Constant):
                said.append(braced(part.value))
                continue
            value = part.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                said.append(braced(value.value))
            elif isinstance(value, ast.Name) and isinstance(self.constants.get(value.id), ast.Constant) \
                    and len(str(self.constants[value.id].value)) < 60:
                said.append(braced(str(self.constants[value.id].value)))
            else:
                key = ast.unparse(value)
                if key not in names:
                    plain, number = named(value), 2
                    name = plain
                    while name in names.values():
                        name, number = f"{plain}{number}", number + 1
                    names[key] = name
                said.append(f"{{{names[key]}}}")
                self.fragments(value, around)
        return "".join(said)

    def fragments(self, node: ast.AST, around: tuple) -> None:
        "Take in the texts that are language among what an expression can be."
        if (node, around) in self.seen:
            return
        self.seen.add((node, around))
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.IfExp | ast.BoolOp | ast.BinOp):
            for text in self.texts(node, around):
                self.take(text)
            for child in ast.iter_child_nodes(node):
                if isinstance(node, ast.BoolOp | ast.IfExp) and child is not getattr(node, "test", None):
                    self.fragments(child, around)
        elif isinstance(node, ast.Name):
            for value in self.values(node.id, around):
                self.fragments(value, around)
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            value = self.constants.get(node.value.id)
            for one in value.values if isinstance(value, ast.Dict) else []:
                self.fragments(one, around)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", "")
            if name in self.others and name not in self.functions:
                self.parts |= self.others[name].returned(name)
            elif name in self.functions:
                function = self.functions[name]
                for inner in ast.walk(function):
                    if isinstance(inner, ast.Return | ast.Yield) and inner.value is not None:
                        self.fragments(inner.value, (function,))
            elif isinstance(node.func, ast.Attribute) and node.func.attr == "format":
                for text in self.texts(node, around):
                    self.take(text)
            elif isinstance(node.func, ast.Attribute) and node.func.attr == "join" and node.args:
                self.fragments(node.args[0], around)
        elif isinstance(node, ast.List | ast.Tuple):
            for one in node.elts:
                self.fragments(one, around)
        elif isinstance(node, ast.ListComp | ast.GeneratorExp):
            self.fragments(node.elt, around)

    def returned(self, name: str) -> dict:
        "What a function of this module may return, as parts."
        before, self.parts = self.parts, {}
        for node in ast.walk(self.functions[name]):
            if isinstance(node, ast.Return) and node.value is not None:
                self.fragments(node.value, (self.functions[name],))
        found, self.parts = self.parts, before
        return found

    def take(self, text: str) -> None:
        "A fragment, if it is of two words, or of one and what stands with it."
        words = len(re.findall(r"[A-Za-z]{2,}", PLACE.sub(" ", text)))
        if " " in text and (words > 1 or words and PLACE.search(text)):
            self.parts[text] = None


def braced(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def filled(text: str, given: list) -> str:
    "A text with {} in it, after `str.format`; its braces are doubled already."
    for one in given:
        text = text.replace("{{}}", one, 1)
    return text


def named(node: ast.AST) -> str:
    "A short name for what stands in braces; lists say how they are joined."
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join" \
            and isinstance(node.func.value, ast.Constant) and node.args:
        link = re.search(r"\b(and|or)\b", str(node.func.value.value))
        return named(node.args[0]) + (f"_{link[1]}" if link else "")
    if isinstance(node, ast.Call):
        parts = [*node.args, node.func] if not isinstance(node.func, ast.Attribute) else \
            [node.func.value, *node.args]
        if isinstance(node.func, ast.Name) and node.func.id.startswith("_"):
            return node.func.id.strip("_")
        return next((name for part in parts if (name := named(part)) != "value"), "value")
    if isinstance(node, ast.Attribute):
        return node.attr if not node.attr.startswith("__") else named(node.value)
    if isinstance(node, ast.Name):
        return node.id.strip("_").lower()
    if isinstance(node, ast.Subscript):
        key = node.slice.value if isinstance(node.slice, ast.Constant) else ""
        return key if isinstance(key, str) and key.isidentifier() else named(node.value)
    if isinstance(node, ast.IfExp):
        return "more"
    for child in ast.iter_child_nodes(node):
        if (name := named(child)) != "value":
            return name
    return "value"


def logged(call: ast.Call) -> str:
    "A line of the log, with names in the place of %s."
    names = iter(call.args[1:])
    used: list = []

    def name(match):
        if match[0] == "%%":
            return "%"
        plain, number = named(next(names)), 2
        one = plain
        while one in used:
            one, number = f"{plain}{number}", number + 1
        used.append(one)
        return f"{{{one}}}"
    return re.sub(r"%(?:%|[\d.]*[sdfrg])", name, braced(call.args[0].value))


def messages() -> dict:
    "English -> kinds, of all that the command line says."
    paths = sorted(path for path in PACKAGE.glob("*.py") if not path.name.startswith("_"))
    errors, trees = {"InputError", "KeyboardInterrupt"}, [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    for tree in trees:
        errors |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
                   and any(getattr(base, "id", "") in errors for base in node.bases)}
    found = {text: [PART] for text in [*ARGPARSE, *EXPECTED]} | {text: [TEXT] for text in [*NAMES, *TABLES]}
    modules = [Module(path, errors) for path in paths]
    for path in sorted((PACKAGE / "data").rglob("*.html")):  # texts in double brackets, for `spoken`
        found |= {text: [TEXT] for text in re.findall(r"\[\[([^\[\]]+)\]\]", path.read_text(encoding="utf-8"))
                  if text not in found}
    homes = {name: module for module in modules for name in module.functions if name in TELLING}
    for module in modules:
        module.others = homes
        for kind, text in module.found():
            if re.search(r"[A-Za-z]{2,}", PLACE.sub(" ", text)) or kind == TEXT and PLACE.search(text):
                kinds = found.setdefault(text, [])
                kinds += [kind] if kind not in kinds else []
    return {text: ", ".join(sorted(kinds)) for text, kinds in found.items()}


# --- the catalogue -------------------------------------------------------------------------------

def extracted(old: polib.POFile) -> polib.POFile:
    "Today's messages, with the translations of `old`; a changed text's one is fuzzy."
    before = {entry.msgid: entry for entry in old if not entry.obsolete}
    entries = {}
    for text, kind in messages().items():
        entries[text] = before.pop(text, None) or polib.POEntry(msgid=text)
        entries[text].comment = kind
    for text, entry in entries.items():
        near = difflib.get_close_matches(text, before, n=1, cutoff=0.7) if not entry.msgstr else []
        if near and before[near[0]].msgstr:
            former = before.pop(near[0])
            entry.msgstr, entry.previous_msgid = former.msgstr, former.previous_msgid or near[0]
            entry.flags = ["fuzzy"]
    return fresh(entries.values())


def faults(entry: polib.POEntry) -> list:
    "What keeps a translation from being used."
    said = [sorted(set(PLACE.findall(text))) for text in (entry.msgid, entry.msgstr)]
    found = [] if said[0] == said[1] else [f"placeholders differ: {said[0]} became {said[1]}"]
    try:
        entry.msgstr.format(**dict.fromkeys(said[1], ""))
    except (ValueError, KeyError, IndexError) as error:
        found.append(f"braces: {error!r}")
    options = [set(re.findall(r"--[a-z][a-z0-9-]*", text)) for text in (entry.msgid, entry.msgstr)]
    if options[0] != options[1]:
        found.append(f"options: {sorted(options[0])} became {sorted(options[1])}")
    return found


def check() -> list:
    "Sentences on what is missing, stale or broken."
    place, wrong = f"docs/ja/{CATALOGUE.name}", []
    entries = {entry.msgid: entry for entry in opened(CATALOGUE) if not entry.obsolete}
    wanted = messages()
    for text in wanted:
        start, entry = repr(text[:60]), entries.get(text)
        if entry is None or not entry.msgstr:
            wrong.append(f"{place}: {start} has no translation")
        elif entry.fuzzy:
            wrong.append(f"{place}: {start} has changed since it was translated")
        else:
            wrong += [f"{place}: {start}: {fault}" for fault in faults(entry)]
    wrong += [f"{place}: {text[:60]!r} is said nowhere any more" for text in entries if text not in wanted]
    if not WORDS.exists() or WORDS.read_text(encoding="utf-8") != data():
        wrong.append(f"{WORDS.relative_to(ROOT)} is not what {place} says; run python docs/catalogue.py build")
    return wrong


def data() -> str:
    "What the package reads, as JSON: kind -> English -> Japanese."
    said: dict = {SENTENCE: {}, PART: {}, TEXT: {}}
    for entry in opened(CATALOGUE):
        if usable(entry):
            for kind in entry.comment.split(", "):
                said[kind][entry.msgid] = entry.msgstr
    return json.dumps(said, ensure_ascii=False, indent=0, sort_keys=True) + "\n"


def extract() -> None:
    store(CATALOGUE, str(extracted(opened(CATALOGUE))) + "\n")


def build() -> None:
    store(WORDS, data())
