"""The tools of docs/: the executor, the README, the Colab cells and the adapter of the site."""
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import adapter  # noqa: E402
import colab  # noqa: E402
import docstrings  # noqa: E402
from editions import EDITIONS  # noqa: E402
import finish  # noqa: E402
import project  # noqa: E402
import readme  # noqa: E402
import route  # noqa: E402
from qlora_nb.core import InputError  # noqa: E402


def book(path: Path, *cells) -> Path:
    "Write a notebook; a cell that begins with `md:` is markdown."
    made = [nbformat.v4.new_markdown_cell(text[3:]) if text.startswith("md:")
            else nbformat.v4.new_code_cell(text) for text in cells]
    nb = nbformat.v4.new_notebook(cells=made, metadata={
        "kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}})
    path.write_text(nbformat.writes(nb), encoding="utf-8")
    return path


def tool(name: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "docs" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


def printed(path: Path) -> list:
    "What each code cell of a stored notebook printed."
    cells = nbformat.read(path, as_version=4).cells
    return ["".join(o.get("text", "") for o in cell.outputs) for cell in cells
            if cell.cell_type == "code"]


# --- docs/execute.py -----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    "Notebooks that were executed twice: with `--flags gpu`, then without; bytes in between."
    folder = tmp_path_factory.mktemp("books")
    book(folder / "noise.ipynb", "md:# Title", "import sys\nx = 2", "print(x + 1)",
         "#| gpu\nprint('on a gpu')", "#| eval: false\nraise SystemExit",
         "print('half\\rwhole'); print('noise', file=sys.stderr); object()",
         "from tqdm.auto import tqdm\nfor _ in tqdm(range(3), disable=False): pass")
    book(folder / "shown.ipynb", "md:# A", "import matplotlib.pyplot as plt",
         "plt.plot([1, 2]);")
    bad = book(folder / "bad.ipynb", "print('before')", "1 / 0").read_bytes()
    paths = sorted(folder.glob("*.ipynb"))
    first = tool("execute.py", "--flags", "gpu", *paths)
    stored = {path.name: path.read_bytes() for path in paths}
    second = tool("execute.py", *paths)
    return folder, stored, bad, first, second


def test_execute_runs_what_the_directives_allow(ran):
    folder, _, _, first, second = ran
    assert "noise.ipynb: 5 cells, 1 left as they were" in first.stdout
    assert "noise.ipynb: 4 cells, 2 left as they were" in second.stdout
    # The second run left the output of the cell behind the flag where it was.
    assert printed(folder / "noise.ipynb") == ["", "3\n", "on a gpu\n", "", "whole\n", ""]


def test_execute_stores_no_noise(ran):
    folder, stored, _, first, _ = ran
    text = stored["noise.ipynb"].decode()
    assert "noise\n" in first.stderr and "noise\\n" not in text
    assert "0x" not in text and "it/s" not in text and '"<object>"' in text
    assert '"execution_count": null' in text and '"execution_count": 1' not in text


def test_execute_leaves_a_failing_notebook_as_it_was_and_goes_on(ran):
    folder, stored, bad, first, _ = ran
    assert first.returncode == 1 and "ZeroDivisionError" in first.stderr
    assert stored["bad.ipynb"] == bad and printed(folder / "noise.ipynb")[1] == "3\n"
    sources = [cell.source for cell in nbformat.read(folder / "noise.ipynb", as_version=4).cells]
    assert sources[:3] == ["# Title", "import sys\nx = 2", "print(x + 1)"] and len(sources) == 7


def test_execute_twice_is_execute_once_and_nbdev_clean_changes_nothing(ran):
    folder, stored, *_ = ran
    assert {name: (folder / name).read_bytes() for name in stored} == stored
    nb = json.loads(stored["shown.ipynb"])
    assert "image/png" in nb["cells"][2]["outputs"][0]["data"]
    clean = "from nbdev.clean import nbdev_clean as run; run()"
    for name in ("noise.ipynb", "shown.ipynb"):
        subprocess.run([sys.executable, "-c", clean, "--fname", str(folder / name)], check=True,
                       cwd=ROOT)
        assert (folder / name).read_bytes() == stored[name]


@pytest.mark.parametrize("arguments", [["no_such.ipynb"], ["--flags", "cpu"]])
def test_execute_refuses_what_it_does_not_know(arguments):
    done = tool("execute.py", *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr


# --- docs/readme.py and docs/colab.py ------------------------------------------------------------

def test_readme_and_colab_cells_are_current():
    for name in ("readme.py", "colab.py"):
        done = tool(name, "--check")
        assert done.returncode == 0, done.stderr


def test_owner_and_repository_stand_in_the_settings_alone():
    "Elsewhere only in what is made from them: README.md, the Colab cells, the line that clones."
    found = project.settings()
    place = f"{found['user']}/{found['repo']}"
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"],
                            capture_output=True, text=True, cwd=ROOT, check=True).stdout.split()
    made = {*(edition.readme for edition in EDITIONS), f"{found['lib_path']}/_modidx.py"}
    holders = set()
    for name in set(listed) - made:
        path = ROOT / name
        if path.suffix == ".ipynb" and path.exists():
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            text = "\n".join("".join(cell["source"]) for cell in cells
                             if not colab.is_badge(cell) and not colab.is_setup(cell)
                             and not "".join(cell["source"]).startswith(route.START))
        else:
            text = path.read_bytes().decode("utf-8", "ignore") if path.is_file() else ""
        if place in text:
            holders.add(name)
    assert holders == set()


def test_colab_cells_follow_the_settings_and_stay_where_they_are(monkeypatch):
    first = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# T"]}
    named = {"cell_type": "code", "id": "b", "metadata": {}, "outputs": [],
             "execution_count": None, "source": ["#| default_exp t"]}
    nb = colab.filled({"cells": [first, named]}, "03_t.ipynb")
    assert [colab.is_badge(cell) for cell in nb["cells"]] == [False, True, False, False]
    assert [colab.is_setup(cell) for cell in nb["cells"]] == [False, False, False, True]
    assert colab.filled(nb, "03_t.ipynb") == nb
    settings = {**project.settings(), "user": "someone", "repo": "somewhere"}
    monkeypatch.setattr(project, "settings", lambda: settings)
    monkeypatch.setattr(colab, "settings", lambda: settings)
    moved = colab.filled(nb, "03_t.ipynb")
    assert [cell["id"] for cell in moved["cells"]] == [cell["id"] for cell in nb["cells"]]
    assert "github/someone/somewhere/blob" in "".join(moved["cells"][1]["source"])
    assert "git+https://github.com/someone/somewhere" in "".join(moved["cells"][3]["source"])


def test_colab_cell_does_nothing_where_the_package_is(capsys):
    def never():
        raise AssertionError("the cell wants to install")
    exec(colab.setup(), {"get_ipython": never})
    assert capsys.readouterr().out == ""


def test_colab_cell_installs_where_the_package_is_missing(monkeypatch):
    calls = []

    class Shell:
        def run_line_magic(self, *words):
            calls.append(words)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(colab.setup(), {"get_ipython": Shell})
    wanted = f"git+{project.repository()}@{project.settings()['branch']}"
    assert len(calls) == 1 and calls[0][0] == "pip" and wanted in calls[0][1]
    assert "[chapters]" in calls[0][1]


def test_readme_links_hold_from_the_root():
    text = "[a](a_core.ipynb#x) [b](../LICENSE) [c](https://e.org/) `[d](a_core.ipynb)` [e](#here)"
    assert readme.relinked(text, EDITIONS[0]) == ("[a](nbs/a_core.ipynb#x) [b](LICENSE) [c](https://e.org/) "
                                     "`[d](a_core.ipynb)` [e](#here)")
    with pytest.raises(InputError, match="does not exist"):
        readme.relinked("[a](99_nothing.ipynb)", EDITIONS[0])


# --- docs/adapter.py -----------------------------------------------------------------------------

CODE = '''#| export
def scaled(
    x,  # numbers, shape (n,)
    *,
    factor: float | None = 2.0,  # by how much; see $\\sqrt{2}$
    **rest,  # ignored
) -> list:  # as many as `x`
    "Multiply `x`; raises `InputError`."
    return [v * factor for v in x]
'''


@pytest.fixture
def symbols():
    cells = [{"cell_type": "code", "source": "#| default_exp toy"},
             {"cell_type": "code", "source": CODE},
             {"cell_type": "code", "source": "#| export\nclass Box:\n    'A box.'\n"
                                             "    def open(self):\n        'Open it.'\n"}]
    return adapter.Symbols({"toy.ipynb": {"cells": cells}})


def test_names_in_prose_lead_to_their_entries(symbols):
    link = symbols.link("Use `scaled()`, `toy.scaled`, `Box.open`, not `numpy.dot`, "
                        "[`scaled`](x) or ``scaled``.\n\n# On `scaled`\n\n```\n`scaled`\n```", "toy")
    assert link.count("<qlora_nb.toy.scaled>") == 2 and "<qlora_nb.toy.Box.open>" in link
    assert "`numpy.dot`, [`scaled`](x) or ``scaled``.\n\n# On `scaled`\n\n```\n`scaled`" in link


def test_an_entry_holds_signature_parameters_and_docstring(symbols):
    code = CODE.split("\n", 1)[1]
    made = adapter.entry(adapter.definitions(code)[0], code, "toy", symbols)
    assert "{py:function} scaled(x, *, factor=2.0, **rest)" in made
    assert "| `x` |  |  | numbers, shape (n,) |" in made
    assert "| `factor` | `float \\| None` | `2.0` | by how much; see $\\sqrt{2}$ |" in made
    assert "| *returns* | `list` |  | as many as `x` |" in made
    assert "Multiply `x`" in made


def test_a_dataclass_shows_its_fields(symbols):
    code = ("@dataclass\nclass Options:\n    'Choices.'\n    rank: int = 8  # of the adapter\n"
            "    alpha: float = 16.0  # scaling\n")
    made = adapter.entry(adapter.definitions(code)[0], code, "toy", symbols)
    assert "{py:class} Options(rank=8, alpha=16.0)" in made
    assert "| `rank` | `int` | `8` | of the adapter |" in made


def test_directives_hide_and_fold(tmp_path, symbols, monkeypatch):
    path = book(tmp_path / "00_toy.ipynb", "md:# Toy", "#| default_exp toy", "#| export\nimport re",
                "#| hide\nassert 1", "#| hide_input\nprint(1)", "#| collapse\nprint(2)",
                "#| echo: false\nprint(3)", "#| output: false\nprint(4)", CODE)
    colab_cells = colab.filled(json.loads(path.read_text(encoding="utf-8")), path.name)
    path.write_text(json.dumps(colab_cells), encoding="utf-8")
    page = adapter.adapted(path, symbols)
    shown = [("".join(cell["source"]), cell["metadata"].get("tags")) for cell in page["cells"]]
    assert [text for text, _ in shown if "assert 1" in text or "colab" in text.lower()] == []
    assert [text for text, _ in shown if "#|" in text or "default_exp" in text] == []
    tags = dict(shown)
    assert tags["import re"] == ["hide-input"] and tags["print(1)"] == ["remove-input"]
    assert tags["print(2)"] == ["hide-input"] and tags["print(3)"] == ["remove-input"]
    assert tags["print(4)"] == ["remove-output"] and "{py:function} scaled" in shown[-1][0]


def test_a_folded_cell_has_a_label_of_its_own(tmp_path, symbols):
    path = book(tmp_path / "00_toy.ipynb", "md:# Toy", "#| collapse: The fast way\nx = 2",
                "#| collapse: Proof\nassert x == 2\nprint(x)", "#| collapse\nfor y in [x]:\n    assert y",
                "#| collapse\nprint(1)", "#| collapse: Proof\n#| eval: false\nassert 3")
    page = adapter.adapted(path, symbols)
    cells = [cell for cell in page["cells"] if cell["cell_type"] == "code"]
    assert [cell["metadata"]["tags"] for cell in cells] == [["hide-input"]] * 5
    assert not any("#|" in "".join(cell["source"]) for cell in cells)
    prompts = [cell["metadata"].get("mystnb", {}).get("code_prompt_show") for cell in cells]
    assert prompts == ["The fast way", "Proof", "Proof", None, "Proof"]


def test_a_label_does_not_reach_the_library(tmp_path):
    from nbdev.export import nb_export
    path = book(tmp_path / "toy.ipynb", "#| default_exp toy",
                "#| collapse: The fast way\n#| export\ndef f(): return 1", "#| collapse: Proof\nassert f()")
    nb_export(path, lib_path=tmp_path)
    made = docstrings.documented((tmp_path / "toy.py").read_text(encoding="utf-8"))
    assert "def f()" in made and "collapse" not in made and "assert" not in made


@pytest.mark.parametrize(("code", "proof"), [
    ("assert a\nassert b", True), ("test_eq(a, b)\ntorch.testing.assert_close(a, b)", True),
    ("with pytest.raises(ValueError):\n    assert f()", True), ("a = 1\nassert a", False),
    ("for a in b:\n    print(a)", False), ("print(a)", False)])
def test_a_proof_is_made_of_assertions_only(code, proof):
    assert all(map(adapter.is_proof, adapter.statements(code))) == proof


def test_a_stored_widget_is_refused():
    shown = {"data": {adapter.VIEW: {"model_id": "a"}}}
    adapter.check_widgets({"cells": [{"outputs": [{"data": {"text/html": "a"}}]}]}, "toy.ipynb")
    with pytest.raises(InputError, match="nbs/toy.ipynb stores a widget"):
        adapter.check_widgets({"cells": [{"outputs": [shown]}]}, "toy.ipynb")


@pytest.mark.parametrize(("code", "label"), [
    ("import re\nfrom a import b", "Imports"),
    ("try:\n    import bitsandbytes\nexcept ImportError:\n    bitsandbytes = None", "Imports"),
    ("use_style()", "Settings"),
    ("import torch\ntorch.set_printoptions(precision=3)", "Imports and settings"),
    ("import re\nx = 2", None), ("run()", None), ("", None), ("%matplotlib", None)])
def test_cells_that_only_prepare_are_folded(code, label):
    assert adapter.folded(code) == label


def test_private_definitions_stand_folded_below_the_public_ones():
    code = "def _first(): return 1\n\n@cache\ndef shown():  # a comment\n    return _first()\n\nLIMIT = 2\n"
    assert adapter.parted(code) == ("@cache\ndef shown():  # a comment\n    return _first()\n\nLIMIT = 2",
                                    "def _first(): return 1", ["_first"])
    assert adapter.parted("x = 1") == ("x = 1", "", [])


# --- docs/finish.py ------------------------------------------------------------------------------

@pytest.mark.parametrize(("markup", "made"), [
    ("<p>The word 富士山 is one.</p>", '<p>The word <span lang="ja">富士山</span> is one.</p>'),
    ("<td>ワニの色は何ですか。</td>", '<td lang="ja">ワニの色は何ですか。</td>'),
    ("<p>答え: 42 です</p>", '<p lang="ja">答え: 42 です</p>'),
    ("<p>plain</p>", "<p>plain</p>"), ("<script>'山'</script>", "<script>'山'</script>")])
def test_japanese_passages_say_so(markup, made):
    soup = finish.BeautifulSoup(f"<body>{markup}</body>", "html.parser")
    finish.mark_japanese(soup)
    assert soup.body.decode_contents() == made


def test_style_sheets_keep_what_a_page_needs():
    sheet = (".a { color: red } .b, .a:hover { top: 0 } .a :is(.b, .a) { left: 0 }\n"
             "@media print { .b { top: 1px } } @media screen { .a > p { top: 2px } }\n"
             ":root { --x: 1 } a[href='.b'] { top: 3px } @font-face { font-family: Icons }")
    kept = finish.purge(sheet, {"a"})
    assert ".a{color: red}" in kept and ".a:hover{top: 0}" in kept and ":root{--x: 1}" in kept
    assert "screen" in kept and '[href=".b"]' in kept and ":is(.b, .a)" in kept
    assert "print" not in kept and ".b{" not in kept and "Icons" not in kept


def test_links_between_notebooks_become_links_between_pages():
    text = "[a](a_core.ipynb#x), [b](../setup.py), [c](../docs), `[d](a_core.ipynb)` [e](#A-Part)"
    made = adapter.relinked(text, "index.ipynb")
    assert made == (f"[a](core.ipynb#x), [b]({project.source('setup.py')}), "
                    f"[c]({project.repository()}/tree/{project.settings()['branch']}/docs), "
                    "`[d](a_core.ipynb)` [e](#a-part)")
    with pytest.raises(InputError, match="does not exist"):
        adapter.relinked("[a](../no/such/file)", "index.ipynb")


def test_alerts_become_callouts():
    made = adapter.callouts("a\n\n> [!NOTE]\n> One `b`.\n>\n> Two.\n\n> plain\n")
    assert made == "a\n\n::::{note}\nOne `b`.\n\nTwo.\n::::\n\n> plain\n"


def test_chapters_stand_in_their_parts():
    parts = ["00_bits", "02_nf4", "03_blockwise", "05_lora", "09_memory", "14_tokenizer",
             "19_chat", "20_evaluate", "24_claims", "a_core", "index"]
    assert [project.part(name) for name in parts] == [
        "Numbers", "Numbers", "Quantization", "Adapters", "Memory", "A Japanese GPT-NeoX",
        "A Japanese GPT-NeoX", "Evidence", "Evidence", "Appendix: foundations", None]
    appendices = [page for pages in project.APPENDICES.values() for page in pages]
    assert sorted(appendices) == sorted(project.page(path.name) for path in project.notebooks()
                                        if not path.stem[0].isdigit() and path.stem != "index")
    assert project.page("14_tokenizer.ipynb") == "tokenizer"
    assert project.page("a_core.ipynb") == "core"
