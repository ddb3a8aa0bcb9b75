"""The page of errors: its list, its links, and what the command line says of an error that it answers."""
import json
import re
from pathlib import Path

import pytest

from qlora_nb import cli
from qlora_nb.micro import micro_folder
from qlora_nb.questions import KNOWN_ERRORS, answer_to

NBS = Path(__file__).resolve().parent.parent / "nbs"


def markdown(name: str) -> str:
    cells = json.loads((NBS / name).read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def slug(heading: str) -> str:
    "The anchor of a heading, as a notebook links to it."
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.replace("`", "")).lower().strip()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def page_id(heading: str) -> str:
    "The same, as the finished page has it: docutils' rule."
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def headings(name: str) -> list[str]:
    return re.findall(r"^#{2,3} (.+)$", markdown(name), flags=re.M)


def test_the_list_names_every_question_once_and_in_order():
    listed = re.findall(r"^- \[(.+)\]\(#([^)]+)\)$", markdown("a_questions.ipynb"), flags=re.M)
    asked = re.findall(r"^### (.+)$", markdown("a_questions.ipynb"), flags=re.M)
    assert [heading for heading, _ in listed] == asked and len(asked) >= 25
    assert [anchor for _, anchor in listed] == [slug(heading) for heading in asked]
    assert len(set(map(slug, asked))) == len(asked)


def test_every_link_leads_to_a_heading_that_is_there():
    links = re.findall(r"\]\((\w+\.ipynb)(?:#([^)]+))?\)", markdown("a_questions.ipynb"))
    assert len(links) >= 20
    for name, anchor in links:
        assert not anchor or anchor in map(slug, headings(name)), (name, anchor)


def test_answers_are_short():
    sections = re.split(r"^### ", markdown("a_questions.ipynb"), flags=re.M)[1:]
    for section in sections:
        answer = re.sub(r"^\*Figure: .*$", "", section.partition("\n")[2], flags=re.M)
        words = answer.partition("\n## ")[0].split()
        assert 25 <= len(words) <= 110, section


@pytest.mark.parametrize("words", KNOWN_ERRORS)
def test_the_command_line_leads_to_the_answer(words, called, monkeypatch):
    assert KNOWN_ERRORS[words] in map(page_id, headings("a_questions.ipynb"))

    def fail(typed, console):
        raise RuntimeError(f"The library says: {words}, and more.\nSecond line")
    monkeypatch.setitem(cli.COMMANDS, "runs", cli.replace(cli.COMMANDS["runs"], run=fail))
    done = called("runs")
    assert done.returncode == 2 and done.stdout == ""
    place = answer_to(RuntimeError(words))
    assert place.endswith(f"/questions.html#{KNOWN_ERRORS[words]}")
    assert done.stderr == f"qlora-nb: The library says: {words}, and more.; see {place}, or --debug for the traceback\n"


def test_other_errors_stay_what_they_are(called, monkeypatch):
    def fail(typed, console):
        raise RuntimeError("something else")
    monkeypatch.setitem(cli.COMMANDS, "runs", cli.replace(cli.COMMANDS["runs"], run=fail))
    with pytest.raises(RuntimeError, match="something else"):
        called("runs")
    with pytest.raises(RuntimeError, match="something else"):
        called("runs", "--debug")


def test_a_sentence_of_ours_names_the_page_where_a_known_error_is_behind_it(called, monkeypatch):
    def fail(typed, console):
        raise cli.InputError("the memory ran out; take less") from RuntimeError("CUDA out of memory.")
    monkeypatch.setitem(cli.COMMANDS, "runs", cli.replace(cli.COMMANDS["runs"], run=fail))
    said = called("runs").stderr
    assert said.startswith("qlora-nb: the memory ran out; take less; see http")
    assert said.endswith("#cuda-out-of-memory\n")


def test_a_real_command_names_the_section(called, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"title": "a", "body": "b"}\n')
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "config.json").write_text('{"model_type": "gpt_neox_9"}')
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text(
        (micro_folder() / "model" / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(b"a pickle")
    for words, section in [
            ("finetune --dry-run --data rows.jsonl", "#no-columns-in-the-dataset"),
            ("finetune --dry-run --model newer", "#transformers-does-not-recognize-this-architecture\n"),
            ("generate --model old question", "#weights-only-as-pickle\n")]:
        done = called(*words.split())
        assert done.returncode == 2 and f"/questions.html{section}" in done.stderr, done.stderr
