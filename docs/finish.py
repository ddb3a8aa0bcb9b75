"""Finish the pages that Sphinx wrote: what a reader should not have to load or to miss.

Formulae are drawn here and icons set in as SVG, so that no page loads MathJax or an icon font;
Japanese passages say that they are Japanese; every page has a description; style sheets keep the
rules that some page needs; and the site gets a map and a page for addresses that lead nowhere.
"""
import re
from pathlib import Path
from urllib.parse import urlparse

import tinycss2
from bs4 import BeautifulSoup, NavigableString

import project
from editions import EDITIONS, ENGLISH, Edition
from icons import drawing

LETTERS = "\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff9f"
# Japanese letters, with the Latin words and digits between them.
JAPANESE = re.compile(f"[{LETTERS}]+(?:[ -~]{{1,40}}[{LETTERS}]+)*")
# Scripts and styles that the theme brings and no page needs.
UNUSED = ["fontawesome.js", "searchtools.js", "language_data.js", "searchindex.js", "*.map",
          "locales", "webfonts", "*stemmer.js", "webpack-macros.html", "sbt-webpack-macros.html"]
DESCRIPTION = 155  # letters that a search engine shows


# --- the parts of a page -------------------------------------------------------------------------

def parsed(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def fragment(markup: str) -> list:
    return list(BeautifulSoup(markup, "html.parser").contents)


def draw_formulae(soups: dict, draw) -> None:
    "Put the drawing of every formula in its place, with its TeX for those who cannot see it."
    places = [place for soup in soups.values() for place in soup.select(".math")]
    wanted = [[place.get_text(), "display" in place["class"]] for place in places]
    for place, (tex, _), svg in zip(places, wanted, draw(wanted), strict=True):
        place.clear()
        place.extend(fragment(svg))
        place.svg["aria-hidden"] = "true"
        del place.svg["role"]
        place["role"] = "math"
        place["aria-label"] = " ".join(tex.split())


def set_icons(soup: BeautifulSoup) -> None:
    "Replace the names of an icon font's letters by drawings."
    for place in soup.select("i[class*=fa-], span[class*=fa-]"):
        kept = [name for name in place["class"] if not name.startswith("fa")]
        name = next(name[3:] for name in place["class"]
                    if name.startswith("fa-") and name[3:] not in ("solid", "brands", "lg", "fw"))
        place.name = "span"
        place["class"] = ["icon", *kept]
        place.clear()
        place.extend(fragment(drawing(name)))
    for script in soup.select("script[src*=fontawesome]"):
        script.decompose()


def mark_japanese(soup: BeautifulSoup) -> None:
    "Say of each Japanese passage that it is one: for voices, and for the shapes of its letters."
    for words in soup.body.find_all(string=JAPANESE):
        if words.find_parent(["script", "style", "svg", "title"]) or words.find_parent(lang="ja"):
            continue
        if JAPANESE.fullmatch(words.strip()) and words.parent.name in ("span", "td", "th", "p"):
            words.parent["lang"] = "ja"
            continue
        pieces, end = [], 0
        for found in JAPANESE.finditer(words):
            span = soup.new_tag("span", lang="ja")
            span.string = found[0]
            pieces += [NavigableString(words[end:found.start()]), span]
            end = found.end()
        words.replace_with(*pieces, NavigableString(words[end:]))


def lighten_code(soup: BeautifulSoup) -> None:
    "Brackets and spaces have the colour of plain text: they need no elements, of which code has thousands."
    for plain in soup.select(".highlight span.p, .highlight span.w"):
        plain.unwrap()


def ease_tables(soup: BeautifulSoup) -> None:
    "A head without words is an empty cell; what scrolls sideways can be reached by keyboard."
    for head in soup.select("article th"):
        if not head.get_text(strip=True) and not head.find("img"):
            head.name = "td"
    for box in soup.select("div.cell_output pre, div.cell_output .text_html, div.math, "
                           "div.cell_input pre, div.highlight pre, .pst-scrollable-table-container"):
        box["tabindex"] = "0"


def sentences(soup: BeautifulSoup) -> str:
    "What a page is about: the question under its title, or its first paragraph."
    article = soup.select_one("article")
    first = article.select_one("h1 + blockquote, section > p")
    words = " ".join(first.get_text().split()) if first else soup.title.get_text()
    if len(words) <= DESCRIPTION:
        return words
    if "。" in words[:DESCRIPTION]:  # Japanese has no spaces to cut at
        return words[:DESCRIPTION].rpartition("。")[0] + "。"
    return words[:DESCRIPTION].rsplit(" ", 1)[0].rstrip(",;:") + " …"


def describe(soup: BeautifulSoup, name: str, edition: Edition) -> None:
    "What search engines and messengers show of a page, and where it is in other languages."
    words, title = sentences(soup), soup.h1.get_text().removesuffix("#").strip()
    picture = soup.select_one("article img[src^=_images]")
    image = picture["src"] if picture else "_static/cover.png"
    address = edition.site + file_of(name)
    for kind, key, value in [
            ("name", "description", words), ("property", "og:type", "article"),
            ("property", "og:title", title), ("property", "og:description", words),
            ("property", "og:url", address), ("property", "og:image", edition.site + image),
            ("property", "og:site_name", edition.say(project.settings()["title"])),
            ("property", "og:locale", {"en": "en_US", "ja": "ja_JP"}[edition.language]),
            ("name", "twitter:card", "summary_large_image")]:
        for old in soup.head.select(f'meta[{kind}="{key}"]'):
            old.decompose()
        soup.head.append(soup.new_tag("meta", attrs={kind: key, "content": value}))
    for language, other in [*((one.language, one) for one in EDITIONS), ("x-default", ENGLISH)]:
        soup.head.append(soup.new_tag("link", attrs={
            "rel": "alternate", "hreflang": language, "href": other.site + file_of(name)}))


def file_of(name: str) -> str:
    "A page's part of its address."
    return "" if name == "index" else f"{name}.html"


# --- the site as a whole -------------------------------------------------------------------------

def purge(sheet: str, words: set) -> str:
    "A style sheet without rules about classes and names that no page and no script holds."
    def needed(selector: str) -> bool:
        # Names in brackets, and alternatives such as :is(.a, .b), decide nothing alone.
        plain = re.sub(r"\[[^\]]*\]|:[\w-]+\((?:[^()]|\([^()]*\))*\)", "", selector)
        return set(re.findall(r"[.#]((?:[\w-]|\\.)+)", plain)) <= words

    def kept(rules) -> list:
        found = []
        for rule in rules:
            if rule.type == "qualified-rule":
                selectors = tinycss2.serialize(rule.prelude).strip()
                # Commas inside brackets belong to one selector.
                chosen = [one for one in re.split(r",(?![^(\[]*[)\]])", selectors) if needed(one)]
                if chosen:
                    body = tinycss2.serialize(rule.content).strip()
                    found.append(f"{','.join(chosen)}{{{body}}}")
            elif rule.type == "at-rule" and rule.at_keyword in ("media", "supports"):
                inside = kept(tinycss2.parse_rule_list(rule.content, skip_whitespace=True,
                                                       skip_comments=True))
                if inside:
                    head = tinycss2.serialize(rule.prelude).strip()
                    found.append(f"@{rule.at_keyword} {head}{{{''.join(inside)}}}")
            elif rule.type == "at-rule" and rule.at_keyword == "font-face":
                continue  # the icon font's; the book's letters are the reader's own
            else:
                found.append(rule.serialize().strip())
        return found

    return "\n".join(kept(tinycss2.parse_stylesheet(sheet, skip_whitespace=True,
                                                    skip_comments=True)))


def nowhere(soup: BeautifulSoup) -> str:
    "The page for addresses that lead nowhere, made of the front page; it may be shown at any depth."
    soup.head.insert(0, soup.new_tag("base", href=urlparse(project.site()).path))
    soup.title.string = f"Not found — {project.settings()['title']}"
    for other in soup.select("link[rel=canonical], link[rel=next], .bd-sidebar-secondary, "
                             "nav.page-toc, .prev-next-footer, meta[property], "
                             "link[rel=alternate][hreflang], #which-edition"):
        other.decompose()
    article = soup.select_one("article")
    article.clear()
    article.extend(fragment(
        "<h1>There is no such page</h1><p>It may have moved with its chapter. "
        '<a href="./">The front page</a> lists them all, and the search box finds words.</p>'
        '<div lang="ja"><h2>ページが見つかりません</h2><p>章とともに移動したのかもしれません。'
        '<a href="ja/">日本語の目次</a>からすべてのページへ進めます。</p></div>'))
    soup.head.append(soup.new_tag("meta", attrs={"name": "robots", "content": "noindex"}))
    return str(soup)


def finish(folder: Path, names: list, edition: Edition, draw, bound: bool) -> dict:
    """Finish the pages `names` of an edition; `draw` gives the SVG of a list of [TeX, display].

    Returns the pages as they are written, name -> soup: to read them again takes as long as all this.
    """
    soups = {name: parsed(folder / f"{name}.html") for name in names}
    draw_formulae(soups, draw)
    for name, soup in soups.items():
        if not bound:
            for links in soup.select(".as-book"):
                links.decompose()
        set_icons(soup)
        if edition.language != "ja":
            mark_japanese(soup)
        lighten_code(soup)
        ease_tables(soup)
        describe(soup, name, edition)
        (folder / f"{name}.html").write_text(str(soup), encoding="utf-8")
    if edition == ENGLISH:  # the one that servers look for
        (folder / "404.html").write_text(nowhere(parsed(folder / "index.html")), encoding="utf-8")
    words = set()
    for path in [*folder.glob("*.html"), *(folder / "_static").rglob("*.js")]:
        words |= set(re.findall(r"[\w-]+", path.read_text(encoding="utf-8")))
    for path in (folder / "_static").rglob("*.css"):
        path.write_text(purge(path.read_text(encoding="utf-8"), words), encoding="utf-8")
    return soups


def finish_site(folder: Path, names: list) -> None:
    "The map of all editions' pages, and who may read them."
    places = "".join(f"<url><loc>{edition.site}{file_of(name)}</loc></url>"
                     for edition in EDITIONS for name in names)
    (folder / "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{places}</urlset>\n',
        encoding="utf-8")
    (folder / "robots.txt").write_text(
        f"User-agent: *\nAllow: /\nSitemap: {project.site()}sitemap.xml\n", encoding="utf-8")


def for_search(soup: BeautifulSoup) -> str:
    """A page as the index reads it: each heading carries the name of its section, code weighs little.

    The soup itself is changed.
    """
    for section in soup.select("article section[id]"):
        heading = section.find(re.compile("^h[1-6]$"), recursive=False)
        if heading is not None:
            heading["id"] = section["id"]
            del section["id"]
    for code in soup.select("div.cell_input, div.cell_output, details.api"):
        code["data-pagefind-weight"] = "0.2"
    for noise in soup.select("article .headerlink, article .math, .viewcode-link, .toctree-wrapper"):
        noise.decompose()
    return str(soup)

