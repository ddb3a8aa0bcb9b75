"""What several test files need: the command line as a real process, small data, a browser."""
import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from qlora_nb.cli import main
from qlora_nb.micro import micro_folder

os.environ["QLORA_NB_LANG"] = "en"  # whatever the locale of who runs the tests
COMMAND = [str(Path(sys.executable).with_name("qlora-nb"))]


def pytest_collection_finish():
    "A training collects garbage several times: it need not look through all imports each time."
    gc.collect()
    gc.freeze()


@pytest.fixture
def command(tmp_path):
    "Run `qlora-nb` in a folder of its own and return the finished process."
    def run(*arguments, **options):
        return subprocess.run([*COMMAND, *map(str, arguments)], cwd=tmp_path, text=True,
                              capture_output=True, timeout=600, **options)
    return run


@pytest.fixture
def called(tmp_path, monkeypatch, capsys):
    "The same within this process, which imports torch only once: for the many wrong inputs."
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse's own way to end
            status = stop.code
        printed = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=printed.out, stderr=printed.err)
    return run


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> Path:
    "120 rows of the micro world, enough for a few steps."
    lines = (micro_folder() / "train.jsonl").read_text(encoding="utf-8").splitlines()[:120]
    path = tmp_path_factory.mktemp("data") / "small.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def browser():
    "One Chromium for all tests: within a process playwright runs once at a time."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as play:
        names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
        found = next(filter(None, map(shutil.which, names)), play.chromium.executable_path)
        if not Path(found).exists():
            pytest.fail("no Chromium was found; install your system's chromium package, "
                        "or run: playwright install chromium", pytrace=False)
        running = play.chromium.launch(executable_path=found)
        yield running
        running.close()


def write_rows(path: Path, rows: list) -> Path:
    "A JSONL file of `rows`."
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def stored_page(browser):
    "Open what a notebook has stored under a mark, as a page of its own."
    opened = []

    def page(notebook, mark):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        shown = ["".join(output["data"]["text/html"]) for cell in cells
                 for output in cell.get("outputs", []) if "text/html" in output.get("data", {})]
        markup, = (markup for markup in shown if mark in markup)
        opened.append(browser.new_page())
        opened[-1].set_content(markup)
        return opened[-1]
    yield page
    for one in opened:
        one.close()
