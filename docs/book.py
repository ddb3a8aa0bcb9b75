"""Bind the finished pages of _site/ as one book: qlora_nb.epub and qlora_nb.pdf beside them.

Both hold the chapters' text, code, outputs and figures. What needs a browser, and the entries of
the reference that a page folds away, stay on the site.
"""
import html
import mimetypes
import re
import shutil
import uuid
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlparse

from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

import project
from finish import parsed
from qlora_nb.core import InputError, whole_file

STYLE = Path(__file__).with_suffix(".css")
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
LEFT_OUT = ("script, style, form, button, .headerlink, .viewcode-link, details.api, details.hide, "
            ".toctree-wrapper, .prev-next-footer, .memory-calculator")
SHEET = '<link rel="stylesheet" type="text/css" href="{}"/>'


def articles(site: Path, names: list) -> dict:
    "Page name -> its text, without what only a browser can use."
    found = {}
    for name in names:
        article = parsed(site / f"{name}.html").select_one("article.bd-article")
        for calculator in article.select(".memory-calculator"):
            note = BeautifulSoup(f'<p><a href="{project.site()}{name}.html">On the site</a> '
                                 "a calculator stands here.</p>", "html.parser")
            calculator.insert_before(note)
        for part in article.select(LEFT_OUT):
            part.decompose()
        for part in article.select("[tabindex]"):
            del part["tabindex"]
        # Of a slider stays what it shows at first.
        for part in article.select('.slider input, .slider img[style*="display:none"]'):
            part.decompose()
        for part in article.select("table *, table"):
            for old in ("border", "halign", "align", "valign"):
                del part[old]
        found[name] = article
    return found


def relinked(books: dict, address) -> None:
    """Links from chapter to chapter lead to `address(name, anchor)`; others to the site.

    Before, they lead to pages of the site, or to those of the EPUB: both have the chapters' names.
    """
    known = {name: {part["id"] for part in article.select("[id]")} for name, article in books.items()}
    for name, article in books.items():
        for link in article.select("a[href]"):
            target = urlparse(link["href"])
            if target.scheme or target.netloc:
                continue
            page = Path(target.path).stem or name
            anchor = unquote(target.fragment)
            if page in known and (not anchor or anchor in known[page]):
                link["href"] = address(page, anchor)
            else:
                link["href"] = f"{project.site()}{page}.html" + (f"#{anchor}" if anchor else "")


def title(article) -> str:
    return " ".join(article.h1.get_text().split())


# --- one file for readers of electronic books ----------------------------------------------------

def xhtml(heading: str, body: str) -> str:
    return ('<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE html>\n'
            '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" '
            f'lang="en" xml:lang="en" data-theme="light"><head><title>{html.escape(heading)}</title>'
            f'{SHEET.format("pygments.css")}{SHEET.format("book.css")}</head>'
            f"<body>{body}</body></html>\n")


def epub(site: Path, books: dict, target: Path) -> None:
    "Write the articles as an EPUB 3."
    relinked(books, lambda page, anchor: f"{page}.xhtml" + (f"#{anchor}" if anchor else ""))
    files, listed = {}, []
    for name, article in books.items():
        for image in article.select("img[src]"):
            if not image["src"].startswith("data:"):
                files[image["src"]] = (site / image["src"]).read_bytes()
        for part in article.select("[lang]"):
            part["xml:lang"] = part["lang"]
        files[f"{name}.xhtml"] = xhtml(title(article), str(article))
        listed.append(f'<li><a href="{name}.xhtml">{html.escape(title(article))}</a></li>')
    files["contents.xhtml"] = xhtml("Contents", f'<nav epub:type="toc"><h1>Contents</h1><ol>'
                                                f'{"".join(listed)}</ol></nav>')
    files["pygments.css"] = (site / "_static" / "pygments.css").read_text(encoding="utf-8")
    files["book.css"] = STYLE.read_text(encoding="utf-8")
    settings = project.settings()
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{project.site()}{settings['version']}")
    items = "".join(item(place, content) for place, content in files.items())
    spine = "".join(f'<itemref idref="{key(name + ".xhtml")}"/>' for name in ["contents", *books])
    package = (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f'<dc:identifier id="id">urn:uuid:{identity}</dc:identifier>'
        f"<dc:title>{html.escape(settings['title'])}</dc:title><dc:language>en</dc:language>"
        f"<dc:creator>{html.escape(settings['author'])}</dc:creator>"
        '<meta property="dcterms:modified">2000-01-01T00:00:00Z</meta></metadata>'
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>\n")
    container = ('<?xml version="1.0"?>\n<container version="1.0" '
                 'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
                 '<rootfile full-path="book/book.opf" '
                 'media-type="application/oebps-package+xml"/></rootfiles></container>\n')
    with whole_file(target) as fresh, zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as packed:
        # Readers look for these letters at a fixed place: first, and not compressed.
        packed.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        packed.writestr("META-INF/container.xml", container)
        packed.writestr("book/book.opf", package)
        for place, content in files.items():
            packed.writestr(f"book/{place}", content)


def key(place: str) -> str:
    "An identifier in XML's alphabet for a file of the book."
    return "f-" + re.sub(r"[^\w.-]", "-", place)


def item(place: str, content) -> str:
    "The line of the manifest for a file."
    kind = ("application/xhtml+xml" if place.endswith(".xhtml") else mimetypes.guess_type(place)[0])
    holds = ["nav"] * (place == "contents.xhtml") + ["svg"] * (
        place.endswith(".xhtml") and "<svg" in content)
    properties = f' properties="{" ".join(holds)}"' if holds else ""
    return f'<item id="{key(place)}" href="{place}" media-type="{kind}"{properties}/>'


# --- one file for paper --------------------------------------------------------------------------

def bound(books: dict) -> str:
    "All articles as one document, each with names of its own."
    relinked(books, lambda page, anchor: f"#{page}--{anchor}" if anchor else f"#{page}--")
    for name, article in books.items():
        for part in article.select("[id]"):
            part["id"] = f"{name}--{part['id']}"
        for part in article.select("svg use"):
            # A drawing's letters are named within it.
            for attribute in ("xlink:href", "href"):
                if attribute in part.attrs:
                    part[attribute] = f"#{name}--{part[attribute][1:]}"
        article["id"] = f"{name}--"
    settings = project.settings()
    rows = "".join(f'<li><a href="#{name}--">{html.escape(title(article))}</a></li>'
                   for name, article in books.items())
    return (f'<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8"/>'
            f"<title>{html.escape(settings['title'])}</title>"
            f'{SHEET.format("_static/pygments.css")}{SHEET.format(STYLE.as_uri())}</head><body>'
            f'<section class="front"><p class="title">{html.escape(settings["title"])}</p>'
            f'<p>{html.escape(settings["author"])}, version {settings["version"]}</p>'
            f'<p><a href="{project.site()}">{project.site()}</a></p><ol class="list">{rows}</ol></section>'
            + "".join(map(str, books.values())) + "</body></html>")


def pdf(site: Path, books: dict, target: Path) -> None:
    "Print the articles on A4 with Chromium."
    page = site / "book.html"
    page.write_text(bound(books), encoding="utf-8")
    try:
        with sync_playwright() as play:
            found = next(filter(None, map(shutil.which, BROWSERS)), play.chromium.executable_path)
            if not Path(found).exists():
                raise InputError("the PDF is printed by Chromium, and none was found; install your "
                                 "system's chromium package, or run: playwright install chromium")
            browser = play.chromium.launch(executable_path=found)
            tab = browser.new_page()
            tab.goto(page.as_uri())
            tab.pdf(path=target, format="A4", outline=True, tagged=True, print_background=True,
                    margin=dict(top="18mm", bottom="20mm", left="17mm", right="17mm"),
                    display_header_footer=True, header_template="<span></span>",
                    footer_template='<div style="width: 100%; text-align: center; font-size: 8pt">'
                                    '<span class="pageNumber"></span></div>')
            browser.close()
    finally:
        page.unlink()


def order(site: Path) -> list:
    "The pages as a reader goes through them by `next`."
    names = ["index"]
    while link := re.search(r'<a class="right-next" href="([^"]+)"',
                            (site / f"{names[-1]}.html").read_text(encoding="utf-8")):
        names.append(Path(link[1]).stem)
    return names
