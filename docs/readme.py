"""Write README.md from nbs/index.ipynb, and README.ja.md from its Japanese edition.

    python docs/readme.py            write both, and their pictures to docs/readme/
    python docs/readme.py --check    change nothing; exit with 1 if a file would change

Code keeps its text outputs, pictures become files, links that are relative to nbs/ become
relative to the root, and the badges follow settings.ini.
"""
import base64
import re
import sys

from nbdev.process import NBProcessor
from nbdev.processors import filter_stream_, hide_, hide_line, strip_ansi

from colab import is_badge, is_setup
from editions import EDITIONS, Edition
from project import ROOT, colab, repository, settings
from qlora_nb.core import InputError, whole_file

PICTURES = "docs/readme"
HIDDEN = {"hide", "default_exp", "export", "exporti", "collapse:"}  # what a page folds, too


def badges(edition: Edition) -> str:
    "The line of badges under the title; before it, the way to the other language."
    actions = f"{repository()}/actions/workflows/test.yml"
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    python = f"Python {settings()['min_python']}+"
    shield = "https://img.shields.io/badge/"
    others = [f"[{other.name}]({other.readme})" for other in EDITIONS if other != edition]
    place = edition.notebooks.relative_to(ROOT / settings()["nbs_path"]) / "index.ipynb"
    return " · ".join(others) + "\n\n" + "\n".join([
        f"[![tests]({actions}/badge.svg)]({actions})",
        f"[![the book]({shield}read-the%20book-0072B2)]({edition.site})",
        f"[![Open in Colab]({image})]({colab(place.as_posix())})",
        f"[![{python}]({shield}{python.replace(' ', '%20')}-555)](setup.py)",
        f"[![license: Apache-2.0]({shield}license-Apache--2.0-555)](LICENSE)",
    ])


def relinked(text: str, edition: Edition) -> str:
    "Markdown whose relative link targets, written from the notebooks' folder, hold from the root."
    def target(match):
        address = match[2]
        if re.match(r"[a-z][a-z+.-]*:|#|/", address):
            return match[0]
        path, mark, anchor = address.partition("#")
        resolved = (edition.notebooks / path).resolve()
        if not resolved.exists() or not resolved.is_relative_to(ROOT):
            raise InputError(f"nbs/index.ipynb links to {address!r}, which does not exist; "
                             "give the path of a file of the repository, seen from nbs/")
        return f"{match[1]}{resolved.relative_to(ROOT).as_posix()}{mark}{anchor})"
    return outside_code(text, lambda part: re.sub(r"(\]\()([^)\s]+)\)", target, part))


def outside_code(text: str, change) -> str:
    "Apply `change` to markdown, but not to its code blocks and code spans."
    parts = re.split(r"(^(?:```|~~~).*?^(?:```|~~~)[^\n]*$|`[^`\n]+`)", text, flags=re.M | re.S)
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))


def code(cell, pictures: dict, folder: str) -> list:
    "The blocks of markdown that show a code cell and its outputs."
    blocks, directives = [], cell.directives_
    if "hide_input" not in directives and directives.get("echo:") != ["false"]:
        blocks.append(f"```python\n{cell.source.strip()}\n```")
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        text = "".join(output.get("text", "") or data.get("text/plain", ""))
        if "image/png" in data:
            name = f"{folder}/{len(pictures) + 1}.png"
            pictures[name] = base64.b64decode("".join(data["image/png"]))
            size = output.get("metadata", {}).get("image/png", {}).get("width")
            width = f' width="{size}"' if size else ""
            blocks.append(f'<img src="{name}" alt="{{alt}}"{width}>')
        elif "<svg" in (drawn := "".join(data.get("text/html", ""))):
            name = f"{folder}/{len(pictures) + 1}.svg"
            pictures[name] = standalone(drawn)
            blocks.append(f'<img src="{name}" alt="{{alt}}">')
        elif "text/markdown" in data:
            blocks.append("".join(data["text/markdown"]).strip())
        elif text.strip():
            blocks.append(f"```text\n{text.rstrip()}\n```")
    return blocks


def standalone(drawn: str) -> bytes:
    "A drawing as a file of its own, whose letters read on light and on dark pages."
    ink = ("<style>svg{color:#24292f}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}"
           "</style>")
    plain = re.sub(r"</?a\b[^>]*>", "", drawn)  # a picture's links lead nowhere
    plain = plain.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    head, mark, rest = plain.partition(">")
    return f"{head}{mark}{ink}{rest}\n".encode()


def readme(edition: Edition) -> dict:
    "All files that an edition's index gives: path from the root -> content."
    folder = PICTURES + ("" if edition == EDITIONS[0] else f"/{edition.language}")
    nb = NBProcessor(edition.notebooks / "index.ipynb", procs=[hide_line, filter_stream_, strip_ansi, hide_],
                     process=True).nb
    pictures, blocks = {}, []
    for cell in nb.cells:
        if is_badge(cell) or is_setup(cell) or HIDDEN & cell.directives_.keys():
            continue
        if cell.cell_type == "markdown":
            text = relinked(cell.source.strip(), edition)
            figure = re.match(r"\*(?:Figure|図): (.*)\*$", text, flags=re.S)
            alt = re.sub(r"[`*$\"<>]", "", figure[1]) if figure else ""
            blocks = [block.replace('alt="{alt}"', f'alt="{alt}"') for block in blocks]
            blocks.append(text)
        elif cell.cell_type == "code" and cell.source.strip():
            blocks += code(cell, pictures, folder)
    title, mark, rest = "\n\n".join(blocks).replace("{alt}", "").partition("\n")
    note = "<!-- Made from nbs/index.ipynb by docs/readme.py: edit the notebook. -->"
    text = f"{title}\n\n{note}\n\n{badges(edition)}\n\n{rest.strip()}\n"
    return {edition.readme: text.encode(), **pictures}


def main() -> int:
    try:
        files = {}
        for edition in EDITIONS:
            if edition.notebooks.exists():
                files |= readme(edition)
    except (InputError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    stale = {path.relative_to(ROOT).as_posix() for path in (ROOT / PICTURES).rglob("*.*g")} - files.keys()
    changed = [name for name, content in files.items()
               if not (ROOT / name).exists() or (ROOT / name).read_bytes() != content]
    if "--check" in sys.argv[1:]:
        if changed or stale:
            print(f"{', '.join([*changed, *sorted(stale)])} would change; "
                  "run: python docs/readme.py", file=sys.stderr)
        return int(bool(changed or stale))
    for name in changed:
        (ROOT / name).parent.mkdir(exist_ok=True)
        with whole_file(ROOT / name) as temporary:
            temporary.write_bytes(files[name])
    for name in stale:
        (ROOT / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
