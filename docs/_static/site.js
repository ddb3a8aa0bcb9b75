// Search over the library's definitions and Pagefind's index, and entries of the reference that open
// when a link leads to them.

const root = new URL(document.documentElement.dataset.content_root, location.href);
const dialog = document.getElementById("book-search");
const field = dialog.querySelector("input");
const status_ = dialog.querySelector(".status");
const list = dialog.querySelector(".results");
const words = JSON.parse(document.getElementById("words").textContent);
const say = (english) => words[english] ?? english;
let index, definitions, latest = 0;

function openSearch() {
  if (!dialog.open) dialog.showModal();
  field.select();
  // The index is read from where this page lies, so that the book works below any path.
  index ??= import(new URL("pagefind/pagefind.js", root)).then(async (pagefind) => {
    await pagefind.options({ excerptLength: 24, baseUrl: root.pathname });
    await pagefind.init();
    return pagefind;
  });
  definitions ??= fetch(new URL("definitions.json", root)).then((answer) => answer.json());
  Promise.all([index, definitions]).catch(() => { status_.textContent = say("The search index was not found: is the site served?"); });
}

function entry(address, title, words, kind) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.href = address;
  item.className = kind;
  const head = document.createElement(kind === "definition" ? "code" : "strong");
  head.textContent = title.replace(/#$/, "");
  link.append(head, words);
  item.append(link);
  return item;
}

function excerpt(markup) {
  const words = document.createElement("span");
  words.innerHTML = markup; // Pagefind escapes the text and adds <mark> alone
  return words;
}

// The definitions whose name is asked for: the very name first, then names that begin with it.
function named(query, all) {
  const name = query.toLowerCase().replace(/^qlora_nb\./, "").replace(/\(\)$/, "");
  if (name.length < 3) return [];
  const rank = (one) => {
    const short = one.name.toLowerCase(), full = `${one.module}.${short}`;
    if (name === short || name === full) return 0;
    if (short.startsWith(name) || full.startsWith(name)) return 1;
    return short.includes(name.replaceAll(" ", "_")) ? 2 : 3;
  };
  return all.filter((one) => rank(one) < 3).sort((a, b) => rank(a) - rank(b)).slice(0, 4)
    .map((one) => entry(new URL(one.url, root), `${one.module}.${one.name}`,
      Object.assign(document.createElement("span"), { textContent: one.words }), "definition"));
}

async function search() {
  const query = field.value.trim(), turn = ++latest;
  if (!query) { list.replaceChildren(); status_.textContent = ""; return; }
  const pagefind = await index;
  const found = await pagefind.search(query);
  const pages = await Promise.all(found.results.slice(0, 8).map((result) => result.data()));
  const names = named(query, await definitions);
  if (turn !== latest) return; // a later letter was typed meanwhile
  const items = pages.flatMap((page) => {
    const inner = page.sub_results.filter((part) => part.url !== page.url).slice(0, 3);
    return [entry(page.url, page.meta.title, excerpt(page.excerpt), "page"),
            ...inner.map((part) => entry(part.url, part.title, excerpt(part.excerpt), "inner"))];
  });
  list.replaceChildren(...names, ...items);
  const count = found.results.length;
  status_.textContent = count === 1 ? say("1 page") : count || names.length
    ? say("{} pages").replace("{}", count) : say("Nothing found for “{}”").replace("{}", query);
}

function move(step) {
  const links = [...list.querySelectorAll("a")];
  const at = links.indexOf(document.activeElement) + step;
  (at < 0 ? field : links[Math.min(at, links.length - 1)])?.focus();
}

document.querySelectorAll(".open-search").forEach((button) => button.addEventListener("click", openSearch));
field.addEventListener("input", search);
dialog.addEventListener("click", (event) => {
  if (event.target === dialog || event.target.closest("a")) dialog.close();
});
dialog.querySelector("form").addEventListener("submit", (event) => {
  if (event.submitter?.className === "close") return;
  event.preventDefault();
  list.querySelector("a")?.click();
});
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) { event.preventDefault(); move(step); }
  // In a search field Escape would only empty it.
  if (event.key === "Escape") { event.preventDefault(); dialog.close(); }
});
// The theme listens for Ctrl+K too: this listener is asked first.
addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    event.stopImmediatePropagation();
    openSearch();
  }
}, true);

// The other edition opens at the section that is being read: sections have one address in both.
document.querySelectorAll(".switch-language").forEach((link) => link.addEventListener("click", () => {
  localStorage.setItem("language", link.lang);
  const passed = [...document.querySelectorAll("article section[id]")]
    .filter((section) => section.getBoundingClientRect().top < 150);
  link.hash = scrollY > 0 && passed.length ? passed.at(-1).id : "";
}));

function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const entry = target && target.closest("details");
  if (entry && !entry.open) { entry.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", unfold);
addEventListener("DOMContentLoaded", unfold);
