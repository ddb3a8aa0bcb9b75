"""Gettext catalogues, as the tools here read and write them."""
from pathlib import Path

import polib

from qlora_nb.core import whole_file

UNWRAPPED = 10**6  # lines are those of the texts: a change of a word changes one line


def opened(path: Path) -> polib.POFile:
    "A catalogue; an empty one where there is no file."
    return polib.pofile(str(path), wrapwidth=UNWRAPPED) if path.exists() else fresh([])


def fresh(entries) -> polib.POFile:
    "A new catalogue of Japanese with these entries."
    po = polib.POFile(wrapwidth=UNWRAPPED)
    po.metadata = {"Content-Type": "text/plain; charset=utf-8", "Language": "ja"}
    po.extend(entries)
    return po


def usable(entry: polib.POEntry) -> bool:
    "Whether an entry has a translation of today's text."
    return bool(entry.msgstr) and not entry.fuzzy and not entry.obsolete


def store(path: Path, text: str) -> None:
    "Write a file that changed, whole or not at all; others keep their time."
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with whole_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
