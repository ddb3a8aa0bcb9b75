"""What the tools in this folder know about the project: its names, its chapters, its addresses.

Owner, repository and branch are read from settings.ini, and stand nowhere else.
"""
import re
from configparser import ConfigParser
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"

# The parts of the book. A chapter belongs to the last part whose first number is not above its own.
PARTS = {0: "Numbers", 3: "Quantization", 5: "Adapters", 9: "Memory",
         14: "A Japanese GPT-NeoX", 20: "Evidence"}
# The appendices, by what one looks for in them; a page that is asked for in a hurry comes first.
APPENDICES = {
    "Appendix: in use": ["questions", "glossary", "cli", "options", "adapters", "playground", "several",
                         "hub", "clusters", "solutions"],
    "Appendix: memory and time": ["fits", "traced", "plan", "preflight", "dry_run", "processor"],
    "Appendix: models and data": ["models", "architectures", "model_files", "loading", "storage",
                                  "bnb_layers", "kernels", "variants", "vocabulary", "templates", "readers"],
    "Appendix: a run": ["prepare", "lean", "exam", "trainer", "processes", "runs", "record"],
    "Appendix: evaluation": ["comparison", "judge", "journal", "harness"],
    "Appendix: foundations": ["core", "language", "progress", "terminal", "plots", "show"],
}


@cache
def settings() -> dict:
    "The section of settings.ini that nbdev reads, with its %(…)s references resolved."
    config = ConfigParser()
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def repository() -> str:
    "The address of the repository, without a slash at its end."
    found = settings()
    return f"https://github.com/{found['user']}/{found['repo']}"


def source(path: str) -> str:
    "The address of a file of the repository, given by its path from the root."
    return f"{repository()}/blob/{settings()['branch']}/{path}"


def edit(path: str) -> str:
    "The address at which a file of the repository can be changed."
    return f"{repository()}/edit/{settings()['branch']}/{path}"


def questions() -> str:
    "Where readers ask."
    return f"{repository()}/discussions"


def colab(notebook: str) -> str:
    "The address that opens a notebook of nbs/ on Colab."
    found = settings()
    place = f"{found['user']}/{found['repo']}/blob/{found['branch']}/{found['nbs_path']}"
    return f"https://colab.research.google.com/github/{place}/{notebook}"


def site() -> str:
    "The address of the published site, with a slash at its end."
    found = settings()
    return found["doc_host"].rstrip("/") + "/" + found["doc_baseurl"].strip("/") + "/"


def notebooks(folder: Path = NBS) -> list:
    "All chapters, in the order of their names."
    return sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith(("_", ".")))


def page(notebook: str) -> str:
    "The name of a notebook's page: its own without the number, or the `a_` of an appendix."
    return re.sub(r"^(\d+[a-z]*|a)_", "", Path(notebook).stem)


def part(notebook: str) -> str | None:
    "The part of the book that a notebook belongs to; None for the index."
    number = re.match(r"\d+", Path(notebook).name)
    if Path(notebook).stem == "index":
        return None
    if not number:
        return next(name for name, pages in APPENDICES.items() if page(notebook) in pages)
    return [name for first, name in PARTS.items() if first <= int(number[0])][-1]
