"""The built site in a browser: every page of _site/, served below a path, opened in Chromium."""
import ast
import functools
import http.server
import itertools
import json
import re
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse
from xml.etree import ElementTree

import pytest
from axe_playwright_python.sync_playwright import Axe
from pypdf import PdfReader

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_site"
BELOW = "/some/where/below"
pytestmark = pytest.mark.timeout(600)

sys.path.insert(0, str(ROOT / "docs"))
import adapter  # noqa: E402
import project  # noqa: E402
from editions import EDITIONS, JAPANESE  # noqa: E402
from qlora_nb import activations, fits, memory  # noqa: E402


# --- the site, a server and a tab ----------------------------------------------------------------

@pytest.fixture(scope="session")
def pages() -> dict:
    "Page name -> its notebook, or None for a page that has none."
    if not (SITE / "index.html").exists():
        pytest.fail("_site/ holds no site; build it first: make docs", pytrace=False)
    books = {project.page(path.name): path for path in project.notebooks()}
    missing = sorted(name for name in books if not (SITE / f"{name}.html").exists())
    if missing:
        pytest.fail(f"_site/ is older than nbs/: no page for {missing}; run: make docs",
                    pytrace=False)
    return {path.stem: books.get(path.stem) for path in sorted(SITE.glob("*.html"))
            if path.stem != "404"}


class Below(http.server.SimpleHTTPRequestHandler):
    "Serves the site below a path, and nothing beside it."

    def translate_path(self, path):
        inside = urlparse(path).path.startswith(BELOW + "/")
        return super().translate_path(path[len(BELOW):] if inside else "/nothing/here")

    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def base(pages):
    handler = functools.partial(Below, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}{BELOW}/"
        server.shutdown()


class Tab:
    "A tab that remembers what went wrong in it."

    def __init__(self, browser, base, **options):
        self.context = browser.new_context(**options)
        self.page, self.base, self.faults, self.foreign = self.context.new_page(), base, [], []
        self.weight = 0  # bytes of what was loaded, without pictures
        self.page.on("console", self.spoke)
        self.page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        self.page.on("requestfailed", self.broke)
        self.page.on("response", self.answered)
        self.page.on("request", self.asked)

    def spoke(self, message):
        if message.type == "error":
            self.faults.append(f"console: {message.text}")

    def broke(self, request):
        # A page that is left before its icon has come asks for it no longer.
        if (request.failure, Path(urlparse(request.url).path).name) != ("net::ERR_ABORTED", "mark.svg"):
            self.faults.append(f"failed: {request.url}")

    def answered(self, response):
        if response.status >= 400:
            self.faults.append(f"{response.status}: {response.url}")
        elif response.request.resource_type in ("document", "stylesheet", "script", "font"):
            path = urlparse(response.url).path.removeprefix(BELOW + "/")
            path += "index.html" if path.endswith("/") or not path else ""
            if not (SITE / path).is_file():
                return
            words = re.sub(rb"data:image/[^\"')]+", b"", (SITE / path).read_bytes())
            self.weight += len(words)

    def asked(self, request):
        own = urlparse(request.url).netloc == urlparse(self.base).netloc
        if not own and urlparse(request.url).scheme not in ("data", "blob", "about"):
            self.foreign.append(request.url)

    def open(self, name):
        self.page.goto(f"{self.base}{name}.html")
        return self.page


@pytest.fixture
def tab(browser, base):
    made = Tab(browser, base)
    yield made
    # Chromium may never close a page that is on its way to another: a test waits for where it goes.
    made.context.close()


LOOK = """() => ({
  ids: [...document.querySelectorAll('[id]')].map(e => e.id),
  links: [...document.querySelectorAll('a[href]')].map(a => a.href),
  images: [...document.querySelectorAll('article img')].map(i => [i.src, i.naturalWidth, i.alt]),
  math: document.querySelectorAll('article .math').length,
  raw: [...[...document.querySelectorAll('article .math')]
    .filter(e => !e.querySelector('svg')?.getBoundingClientRect().width && e.getClientRects().length
                 || !e.ariaLabel),
    ...[...document.querySelectorAll('article p')].filter(e => /\\|\\s*-{3}/.test(e.textContent))]
    .map(e => e.textContent),
  wrong: document.querySelectorAll('[data-mml-node=merror]').length,
  icons: [...document.querySelectorAll('[class*=fa-]')].length,
  japanese: (() => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), unmarked = [];
    while (walker.nextNode()) {
      const words = walker.currentNode, parent = words.parentElement;
      if (/[\u3040-\u30ff\u4e00-\u9fff]/.test(words.data) && !parent.closest('[lang=ja], script, style, svg'))
        unmarked.push(words.data.trim().slice(0, 40));
    }
    return unmarked; })(),
  head: Object.fromEntries([...document.querySelectorAll('meta[name], meta[property]')]
    .map(m => [m.name || m.getAttribute('property'), m.content])),
  canonical: document.querySelector('link[rel=canonical]')?.href,
  chosen: document.querySelectorAll('.bd-header-article .theme-switch').length,
  colab: document.querySelector('a.open-colab')?.href ?? null,
  source: document.querySelector('a.open-source').href,
  edit: document.querySelector('a.open-edit')?.href ?? null,
  questions: document.querySelector('a.open-questions').href,
  code: document.querySelectorAll('article div.cell_input pre').length,
})"""


# WCAG's contrast, for every colour of code and of running text: what is below 4.5.
FAINT = """() => {
  const bytes = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = bytes(c).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor, v = bytes(c);
    if (v.length < 4 || v[3] > 0.99) return c; } return 'rgb(255, 255, 255)'; };
  const faint = {};
  for (const e of document.querySelectorAll('article .highlight span, article p, article code, '
      + 'article li, article td, article summary, article a')) {
    if (!e.textContent.trim() || e.closest('.text_html, .headerlink')) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint[e.tagName + '.' + e.className] = [ratio.toFixed(2),
      getComputedStyle(e).color, behind(e), e.textContent.slice(0, 30)];
  }
  return faint; }"""


@pytest.fixture(scope="session")
def looked(browser, base, pages) -> dict:
    "Page name -> what stands on it after its scripts have run, by day, by night and on a phone."
    return look(Tab(browser, base, color_scheme="light"), pages)


@pytest.fixture(scope="session")
def looked_in_japanese(browser, base) -> dict:
    "The same of ten pages of the Japanese edition."
    return look(Tab(browser, base + JAPANESE.prefix, color_scheme="light", locale="ja-JP"), TEN)


TEN = ["index", "bits", "nf4", "lora", "memory", "tokenizer", "finetune", "judges", "questions", "claims"]


def look(tab, pages) -> dict:
    found, axe = {}, Axe()
    # Colours are measured by FAINT, for every word; pictures and frames are not looked into.
    rules = {"resultTypes": ["violations"], "preload": False,
             "rules": {"color-contrast": {"enabled": False}}}
    for name in pages:
        tab.faults, tab.foreign, tab.weight = [], [], 0
        page = tab.open(name)
        page.wait_for_load_state("networkidle")
        found[name] = page.evaluate(LOOK)
        found[name]["weight"] = tab.weight
        found[name]["light"] = page.evaluate(FAINT)
        found[name]["serious"] = [
            (rule["id"], node["html"][:120]) for rule in axe.run(page, options=rules).response["violations"]
            if rule["impact"] in ("serious", "critical") for node in rule["nodes"]]
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
        found[name]["dark"] = page.evaluate(FAINT)
        page.set_viewport_size({"width": 390, "height": 800})
        found[name]["width"] = page.evaluate("document.documentElement.scrollWidth")
        page.set_viewport_size({"width": 1280, "height": 720})
        page.emulate_media(color_scheme="light")
        found[name].update(faults=tab.faults, foreign=tab.foreign)
    tab.context.close()
    return found


def markdown(notebook) -> str:
    "The prose of a notebook, without code blocks and code spans."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.sub(r"```.*?```|`[^`\n]+`", "", text, flags=re.S)


# --- every page ----------------------------------------------------------------------------------

def test_pages_open_without_an_error(looked):
    assert {name: page["faults"] for name, page in looked.items() if page["faults"]} == {}


def test_no_request_leaves_the_host(looked):
    assert {name: page["foreign"] for name, page in looked.items() if page["foreign"]} == {}


def test_formulae_are_rendered(looked, pages):
    assert {name: page["raw"] for name, page in looked.items() if page["raw"]} == {}
    assert [name for name, page in looked.items() if page["wrong"]] == []
    written = {name for name, book in pages.items()
               if book and re.search(r"(?<!\\)\$[^$\s](?:[^$]*[^$\s])?\$", markdown(book))}
    assert {name for name in written if not looked[name]["math"]} == set()


def test_pictures_load_and_are_described(looked, pages):
    assert [image for page in looked.values() for image in page["images"] if not image[1]] == []
    assert [image for page in looked.values() for image in page["images"]
            if not image[2] or image[2].endswith(".png")] == []
    for name, book in pages.items():
        cells = json.loads(book.read_text(encoding="utf-8"))["cells"] if book else []
        for above, cell in zip(cells, cells[1:]):
            words = "".join(cell["source"])
            if words.startswith("*Figure: ") and '"image/png"' in json.dumps(above):
                start = re.sub(r"[`*$\\]", "", words.removeprefix("*Figure: "))[:25]
                assert any(alt.startswith(start) for _, _, alt in looked[name]["images"]), start


def test_icons_are_drawn_and_one_of_the_three_themes_is_shown(looked, tab):
    assert {name: page["icons"] for name, page in looked.items() if page["icons"]} == {}
    page = tab.open("core")
    shown = page.eval_on_selector_all(".bd-header-article .theme-switch",
                                      "all => all.filter(e => e.getClientRects().length).length")
    assert shown == 1 and looked["core"]["chosen"] == 3


def test_japanese_passages_say_that_they_are_japanese(looked):
    assert {name: page["japanese"] for name, page in looked.items() if page["japanese"]} == {}


def test_pages_are_light(looked):
    "At most a megabyte before pictures, nothing compressed."
    assert {name: page["weight"] for name, page in looked.items()
            if not 50_000 < page["weight"] <= 1_000_000} == {}


def test_nothing_hinders_keyboards_and_voices(looked):
    assert {name: page["serious"] for name, page in looked.items() if page["serious"]} == {}


def test_pages_are_described_and_mapped(looked, pages):
    heads = {name: page["head"] for name, page in looked.items()}
    for key in ("description", "og:title", "og:description", "og:image", "og:url", "viewport"):
        assert [name for name, head in heads.items() if not head.get(key)] == [], key
    assert len({head["description"] for head in heads.values()}) == len(pages)
    for head in heads.values():
        assert (SITE / head["og:image"].removeprefix(project.site())).is_file()
        assert len(head["description"]) <= 160
    found = ElementTree.parse(SITE / "sitemap.xml").findall(".//{*}loc")
    mapped = {place.text.removeprefix(project.site()) for place in found}
    assert mapped == {edition.prefix + ("" if name == "index" else f"{name}.html")
                      for edition in EDITIONS for name in pages}
    assert "sitemap.xml" in (SITE / "robots.txt").read_text(encoding="utf-8")


def test_an_address_that_leads_nowhere_shows_a_page_that_leads_on(browser):
    "The page for it is served at any depth below the published address, whose paths it names."
    below = urlparse(project.site()).path

    class Published(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path):
            inside = SITE / (urlparse(path).path.removeprefix(below) or "index.html")
            return str(inside if inside.is_file() else SITE / "404.html")

        def log_message(self, *args):
            pass

    handler = functools.partial(Published, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab = Tab(browser, f"http://localhost:{server.server_port}{below}")
        page = tab.open("no/such/page")
        assert "no such page" in page.inner_text("article h1")
        assert page.evaluate("getComputedStyle(document.querySelector('.bd-main')).display") == "flex"
        assert "ページが見つかりません" in page.inner_text("article [lang=ja]")
        follow(page, "article > p a")
        assert page.url == tab.base and tab.faults == [] and tab.foreign == []
        tab.context.close()
        server.shutdown()


def test_links_inside_the_site_resolve(looked, base):
    broken = []
    for name, page in looked.items():
        for link in page["links"]:
            address, anchor = urldefrag(urljoin(f"{base}{name}.html", link))
            if not address.startswith(base):
                continue
            target = address[len(base):] or "index.html"
            if not (SITE / target).is_file():
                broken.append((name, link))
            elif anchor and unquote(anchor) not in looked[Path(target).stem]["ids"]:
                broken.append((name, link))
    assert broken == []


def test_addresses_follow_the_settings(looked, pages):
    "Colab, source and links into the repository name owner and repository of settings.ini."
    settings = project.settings()
    for name, book in pages.items():
        if book:
            place = f"github/{settings['user']}/{settings['repo']}/blob/{settings['branch']}"
            colab = f"https://colab.research.google.com/{place}/nbs/{book.name}"
            assert looked[name]["colab"] == colab
            assert looked[name]["source"] == project.source(f"nbs/{book.name}")
            assert looked[name]["edit"] == project.edit(f"nbs/{book.name}")
        assert looked[name]["questions"] == project.questions()
    # The two cells that serve readers on Colab are not part of the page.
    assert all("colab-badge" not in (SITE / f"{name}.html").read_text("utf-8") for name in pages)


def test_exported_definitions_have_entries_that_lead_to_their_source(looked, pages):
    count = 0
    for name, book in pages.items():
        nb = json.loads(book.read_text(encoding="utf-8")) if book else {"cells": []}
        home = adapter.module(nb)
        module = ROOT / "qlora_nb" / f"{home}.py"
        lines = module.read_text(encoding="utf-8").splitlines() if home else []
        for cell in nb["cells"]:
            kinds = adapter.directives(cell) if cell["cell_type"] == "code" else set()
            if not kinds & {"export", "exports"} or "hide" in kinds:
                continue
            for node in adapter.definitions("".join(cell["source"])):
                assert f"qlora_nb.{home}.{node.name}" in looked[name]["ids"]
                source = [int(link.rsplit("#L", 1)[1]) for link in looked[name]["links"]
                          if f"/qlora_nb/{home}.py#L" in link]
                kind = "class" if isinstance(node, ast.ClassDef) else "def"
                assert any(re.match(rf"(async )?{kind} {node.name}\b", lines[line - 1])
                           for line in source), f"no source link for {home}.{node.name}"
                count += 1
    assert count > 5


def test_reference_lists_every_definition(looked):
    full = {f"qlora_nb.{home}.{name}" for home, name in exported()}
    listed = {unquote(urldefrag(link)[1]) for link in looked["reference"]["links"]}
    assert full - listed == set()


def exported() -> set:
    "(module, name) of every exported definition."
    found = set()
    for path in project.notebooks():
        nb = json.loads(path.read_text(encoding="utf-8"))
        for cell in nb["cells"]:
            kinds = adapter.directives(cell) if cell["cell_type"] == "code" else set()
            if kinds & {"export", "exports"} and "hide" not in kinds:
                nodes = adapter.definitions("".join(cell["source"]))
                found |= {(adapter.module(nb), node.name) for node in nodes}
    return found


def test_code_of_chapters_is_on_their_pages(looked, pages):
    chapters = [name for name, book in pages.items() if book and adapter.module(
        json.loads(book.read_text(encoding="utf-8")))]
    assert [name for name in chapters if not looked[name]["code"]] == []


# --- what a reader does --------------------------------------------------------------------------

def find(page, words: str) -> list:
    "Type words into the search box; return the names of the pages that it offers."
    if not page.locator("#book-search").is_visible():
        page.keyboard.press("Control+k")
    page.fill("#book-search input", "")
    page.wait_for_function("() => !document.querySelector('#book-search .status').textContent")
    page.fill("#book-search input", words)
    page.wait_for_function("() => document.querySelector('#book-search .status').textContent")
    links = page.eval_on_selector_all("#book-search .results a", "all => all.map(a => a.href)")
    return [Path(urlparse(urljoin(link, "index.html") if link.endswith("/") else link).path).stem
            for link in links]


def test_search_finds_japanese(tab, pages):
    "Words of Japanese sentences, each from the page on which it stands; kanji among Latin letters are cut."
    words = {}
    for name, book in pages.items():
        for word in set(re.findall(r"[一-龥]{2,4}(?=[ぁ-ん])", markdown(book))) if book else ():
            words.setdefault(word, set()).add(name)
    assert words, "no page holds Japanese words: nothing to search for"
    page = tab.open("index")
    rare = sorted(words, key=lambda word: (len(words[word]), word))
    for word in [*rare[:3], *[w for w in ("損失", "量子化") if w in words and len(words[w]) < 8]]:
        assert words[word] & set(find(page, word)), f"{word} stands on {words[word]}"
    assert tab.faults == [] and tab.foreign == []


def test_search_finds_a_definition_and_opens_its_page(tab):
    page = tab.open("plots")
    assert "core" in find(page, "unknown_name")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{tab.base}core.html#qlora_nb.core.unknown_name")
    assert not page.locator("#book-search").is_visible()


@pytest.mark.parametrize(("words", "place"), [
    ("insert_lora", "qlora.html#qlora_nb.qlora.insert_lora"),
    ("largest_batch", "fits.html#qlora_nb.fits.largest_batch"),
    ("qlora_nb.blockwise.quantize()", "blockwise.html#qlora_nb.blockwise.quantize")])
def test_search_offers_the_definition_first(tab, words, place):
    page = tab.open("index")
    find(page, words)
    assert page.eval_on_selector("#book-search .results a", "link => link.href") == tab.base + place


def test_search_leads_to_sections(tab, pages):
    "A heading in the middle of a page is found, and its address leads to it."
    page = tab.open("index")
    find(page, "double quantization")
    inner = page.eval_on_selector_all("#book-search .results .inner a", "all => all.map(a => a.href)")
    assert inner and all("#" in link for link in inner)
    page.goto(inner[0])
    assert page.evaluate("!!document.getElementById(decodeURIComponent(location.hash.slice(1)))")


def test_search_says_when_it_finds_nothing(tab):
    page = tab.open("index")
    assert find(page, "☃☃☃") == []
    assert "Nothing found" in page.inner_text("#book-search .status")
    page.keyboard.press("Escape")
    assert not page.locator("#book-search").is_visible()


def test_dark_mode_switches_and_stays(tab):
    page = tab.open("core")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.click(".bd-header-article .theme-switch-button")
    page.click(".bd-header-article .theme-change-button[data-mode=dark]")
    assert page.get_attribute("html", "data-theme") == "dark"
    dark = page.evaluate(colour)
    assert sum(map(int, re.findall(r"\d+", dark)[:3])) < 150 < 600 < \
        sum(map(int, re.findall(r"\d+", light)[:3]))
    page.reload()
    assert page.get_attribute("html", "data-theme") == "dark"
    tab.open("plots")
    assert page.get_attribute("html", "data-theme") == "dark" and tab.faults == []


def follow(page, link: str) -> None:
    "Click a link and wait for the page that it names."
    target = page.locator(link).evaluate("link => link.href")
    page.click(link)
    page.wait_for_url(target)


def test_next_and_previous_go_through_the_book(tab, pages):
    page, seen = tab.open("index"), ["index"]
    while page.locator("a.right-next").count():
        follow(page, "a.right-next")
        seen.append(Path(urlparse(page.url).path).stem)
    assert sorted(seen) == sorted(pages)
    chapters = [project.page(path.name) for path in project.notebooks() if path.name[0].isdigit()]
    assert [name for name in seen if name in chapters] == chapters
    follow(page, "a.left-prev")
    assert Path(urlparse(page.url).path).stem == seen[-2]


def test_a_link_to_an_entry_opens_it(tab):
    page = tab.open("core")
    page.goto(f"{tab.base}core.html#qlora_nb.core.write_json")
    page.reload()
    assert page.evaluate("document.getElementById('qlora_nb.core.write_json')"
                         ".closest('details').open")


# --- the Japanese edition ------------------------------------------------------------------------

def test_japanese_pages_are_as_sound_as_the_others(looked_in_japanese):
    for name, page in looked_in_japanese.items():
        kinds = ("faults", "foreign", "serious", "raw", "light", "dark")
        assert {kind: page[kind] for kind in kinds if page[kind]} == {}, name
        assert page["width"] <= 390 and page["weight"] <= 1_000_000, name
        assert page["head"]["og:locale"] == "ja_JP" and page["head"]["description"], name


def test_both_editions_have_the_same_pages_sections_and_code(pages):
    for name, book in pages.items():
        ours, theirs = ((SITE / f"{prefix}{name}.html").read_text(encoding="utf-8")
                        for prefix in ("", JAPANESE.prefix))
        # A heading that a page has twice is numbered the second time.
        for pattern in (r'<section [^>]*id="(?!id\d)([^"]+)"', r'(<link [^>]*hreflang="[^>]*>)'):
            assert re.findall(pattern, ours) == re.findall(pattern, theirs) != [], name
        assert re.search('<html [^>]*lang="en"', ours) and re.search('<html [^>]*lang="ja"', theirs)
        assert re.search(rf'<a [^>]*switch-language[^>]*href="../{name}.html"|'
                         rf'<a [^>]*href="../{name}.html"[^>]*switch-language', theirs), name
        if book:
            assert f"/{project.settings()['nbs_path']}/ja/{book.name}" in theirs


def test_the_switch_stays_at_the_section_and_is_remembered(tab):
    page = tab.open("blockwise")
    section = page.locator("article section[id] section[id]").nth(2)
    section.scroll_into_view_if_needed()
    page.evaluate("id => document.getElementById(id).scrollIntoView()", section.get_attribute("id"))
    name = section.get_attribute("id")
    page.locator("a.switch-language").dispatch_event("click")  # a click would scroll first
    page.wait_for_url(f"{tab.base}ja/blockwise.html#{name}")
    assert page.get_attribute("html", "lang") == "ja"
    assert abs(page.locator(f"[id='{name}']").bounding_box()["y"]) < 200
    page.goto(f"{tab.base}bits.html")  # a link to the English page is not turned away
    assert page.url == f"{tab.base}bits.html" and tab.faults == []


def test_the_first_visit_follows_the_browser_and_later_ones_what_was_chosen(browser, base):
    tab = Tab(browser, base, locale="ja-JP")
    page = tab.open("nf4")
    page.wait_for_url(f"{base}ja/nf4.html")
    assert tab.open("bits").url == f"{base}bits.html"  # a link to an English page is not turned away
    page.click(".navbar-brand")  # nor is a way inside the book
    page.wait_for_url(f"{base}index.html")
    tab.open("index")
    page.wait_for_url(f"{base}ja/index.html")
    page.click("a.switch-language")
    page.wait_for_url(f"{base}index.html")
    assert tab.open("index").url == f"{base}index.html"
    tab.context.close()


def test_who_reads_another_language_is_never_sent_to_the_japanese_edition(browser, base):
    tab = Tab(browser, base, locale="fr-FR")
    for name in ("nf4", "ja/nf4", "index"):
        assert tab.open(name).url == f"{base}{name}.html"
    assert tab.faults == []
    tab.context.close()


@pytest.mark.parametrize("words", ["損失", "二重量子化", "量子化とは"])
def test_search_finds_japanese_in_the_japanese_edition(tab, words):
    page = tab.open("ja/index")
    assert find(page, words)
    links = page.eval_on_selector_all("#book-search .results a", "all => all.map(a => a.href)")
    assert all(link.startswith(f"{tab.base}ja/") for link in links)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(links[0])
    assert tab.faults == []


def test_no_line_of_japanese_begins_with_a_full_stop(tab):
    page = tab.open("ja/bits")
    page.set_viewport_size({"width": 390, "height": 800})
    starts = page.evaluate("""() => {
      const found = [], range = document.createRange();
      for (const words of document.querySelectorAll('article p')) {
        const walker = document.createTreeWalker(words, NodeFilter.SHOW_TEXT);
        let last = null;
        while (walker.nextNode()) for (let i = 0; i < walker.currentNode.length; i++) {
          range.setStart(walker.currentNode, i); range.setEnd(walker.currentNode, i + 1);
          const box = range.getBoundingClientRect();
          if (last !== null && box.top > last + 8) found.push(walker.currentNode.data[i]);
          if (box.width) last = box.top;
        }
      }
      return found; }""")
    assert len(starts) > 100 and not set(starts) & set("、。，．）」』】！？ー々")


def test_code_and_words_can_be_read_by_day_and_by_night(looked):
    for scheme in ("light", "dark"):
        assert {name: page[scheme] for name, page in looked.items() if page[scheme]} == {}


def test_pages_fit_a_narrow_screen(looked):
    assert {name: page["width"] for name, page in looked.items() if page["width"] > 390} == {}


# --- the same pages as a book -------------------------------------------------------------------

def test_the_epub_holds_every_page_in_order(pages):
    with zipfile.ZipFile(SITE / "qlora_nb.epub") as packed:
        assert packed.infolist()[0].filename == "mimetype"
        assert packed.infolist()[0].compress_type == zipfile.ZIP_STORED
        held = set(packed.namelist())
        package = ElementTree.fromstring(packed.read("book/book.opf"))
        listed = {item.get("id"): item.get("href") for item in package.findall(".//{*}item")}
        assert {f"book/{place}" for place in listed.values()} == held - {
            "mimetype", "META-INF/container.xml", "book/book.opf"}
        read = [listed[entry.get("idref")] for entry in package.findall(".//{*}itemref")]
        assert sorted(read) == sorted(f"{name}.xhtml" for name in [*pages, "contents"])
        for place in read:
            text = ElementTree.fromstring(packed.read(f"book/{place}"))  # whole XML, or it raises
            for image in text.iter("{http://www.w3.org/1999/xhtml}img"):
                assert image.get("src").startswith("data:") or f"book/{image.get('src')}" in held
            for link in text.iter("{http://www.w3.org/1999/xhtml}a"):
                inside, anchor = urldefrag(link.get("href"))
                assert ":" in inside or not inside or f"book/{inside}" in held, link.get("href")


def test_the_pdf_holds_every_chapter(pages, looked):
    book = PdfReader(SITE / "qlora_nb.pdf")
    titles = {line.title for line in book.outline if not isinstance(line, list)}
    for name, notebook in pages.items():
        if notebook and notebook.name[0].isdigit():
            assert any(title.startswith(notebook.name[:2] + " · ") for title in titles), name
    assert len(book.pages) > 100


# --- the memory calculator -----------------------------------------------------------------------

ASK = """(choices) => choices.map((choice) => {
  const box = document.querySelector('.memory-calculator'), field = box.querySelector('form').elements;
  for (const [name, value] of Object.entries(choice))
    if (name === 'gradient_checkpointing') field[name].checked = value; else field[name].value = value;
  box.querySelector('form').dispatchEvent(new Event('input'));
  return [box.dataset.bytes ?? null, box.dataset.largest ?? null,
          box.querySelector('.answer').textContent];
})"""


def test_the_calculator_equals_the_library(tab):
    "Every model and method, to the byte, over ranks, batches, lengths and GPUs."
    page = tab.open("fits")
    sizes = [(1, 1, 1), (8, 3, 257), (64, 16, 512)]
    choices = [
        dict(model=model, method=method, gradient_checkpointing=on, rank=rank, batch=batch,
             sequence=sequence, gpu=list(fits.GPUS)[i % len(fits.GPUS)], processes=(1, 8, 3)[i % 3])
        for i, (model, method, on, (rank, batch, sequence)) in enumerate(itertools.product(
            memory.MODELS, memory.METHODS, (False, True), sizes))]
    held = 0
    for choice, (found, largest, answer) in zip(choices, page.evaluate(ASK, choices)):
        given = {name: choice[name] for name in ("rank", "batch", "sequence", "gradient_checkpointing")}
        lean = memory.read_shape(choice["model"]).family in activations.LEAN
        given |= {"processes": choice["processes"], "sharded": choice["processes"] > 1}
        recipe = replace(fits.TYPICAL, lean=lean, **given | memory.METHODS[choice["method"]])
        entry = activations.ledger(choice["model"], recipe)
        assert json.loads(found) == list(entry.parts.values()), choice
        assert json.loads(largest) == [
            fits.largest_batch(choice["model"], recipe, choice["gpu"]),
            fits.largest_sequence(choice["model"], recipe, choice["gpu"])], choice
        assert ("does not fit" not in answer) == fits.fits(entry, choice["gpu"])
        held += fits.fits(entry, choice["gpu"])
    assert 0 < held < len(choices) and tab.faults == [] and tab.foreign == []


def test_the_calculator_shows_what_it_counts_and_refuses_what_it_cannot(tab):
    page = tab.open("fits")
    lines = page.locator(".memory-calculator li").all_inner_texts()
    assert len(lines) == 11 and lines[-1].startswith("total")
    assert page.locator(".memory-calculator .bar span").count() == 10
    for name, value, words in [("batch", "0", "whole number"), ("rank", "", "whole number"),
                               ("sequence", "-5", "whole number"), ("sequence", "4096", "2048"),
                               ("batch", "1.5", "whole number")]:
        field = page.locator(f".memory-calculator [name={name}]")
        before = field.input_value()
        field.fill(value)
        assert words in page.inner_text(".memory-calculator .answer")
        assert page.locator(".memory-calculator li").count() == 0
        field.fill(before)
        assert page.locator(".memory-calculator li").count() == 11
    page.select_option(".memory-calculator [name=method]", "full")
    assert page.locator(".memory-calculator [name=rank]").is_disabled()
    assert "does not fit" in page.inner_text(".memory-calculator .answer")
    assert tab.faults == []


def test_the_calculator_can_be_read_by_day_and_by_night(tab):
    page = tab.open("fits")
    colours = """() => {
      const text = document.querySelector('.memory-calculator .answer'), found = [];
      for (const start of [text, document.querySelector('.memory-calculator label'),
                           document.querySelector('.memory-calculator [name=rank]')]) {
        let behind = start;
        while (/rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor))
          behind = behind.parentElement;
        found.push([getComputedStyle(start).color, getComputedStyle(behind).backgroundColor]);
      }
      return found;
    }"""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"() => document.documentElement.dataset.theme === '{scheme}'")
        for pair in page.evaluate(colours):
            low, high = sorted(luminance(colour) for colour in pair)
            assert (high + 0.05) / (low + 0.05) > 4.5, (scheme, pair)


def luminance(colour: str) -> float:
    "The relative luminance of a CSS colour, as WCAG defines it."
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))


def test_claims_can_be_chosen_and_fit_a_phone(tab):
    page = tab.open("claims")
    rows, verdict = page.locator(".claims tr[id]"), page.locator(".claims select").first
    every = rows.count()
    assert every >= 60 and page.locator(".claims tr[id]:visible").count() == every
    page.select_option(".claims select >> nth=0", "does not hold")
    page.select_option(".claims select >> nth=1", "post")
    shown = page.locator(".claims tr[id]:visible")
    assert 0 < shown.count() < every and f"{shown.count()} of {every}" in page.inner_text(".claims output")
    assert set(shown.evaluate_all("rows => rows.map(row => row.dataset.verdict + row.dataset.source)")) == {
        "does not holdpost"}
    verdict.select_option("")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = page.locator(".claims td:visible").evaluate_all(
        "cells => cells.filter(cell => cell.getBoundingClientRect().right > 391).length")
    assert wide == 0 and page.locator(".claims thead").is_hidden() and tab.faults == []
