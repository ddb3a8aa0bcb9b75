"""The command line in Japanese: which language, errors in both, and nothing left in English."""
import json
import os
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from qlora_nb.activations import ledger
from qlora_nb.cli import COMMANDS, gpu_table, main, memory_table
from qlora_nb.language import (
    both, columns, locale_language, retold, speaking, spoken, take_language, told, translate,
)
from qlora_nb.readers import DataReport

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import command as catalogue  # noqa: E402

WIDE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")


@pytest.mark.parametrize("environment, expected", [
    ({}, "en"), ({"LANG": "ja_JP.UTF-8"}, "ja"), ({"LANG": "ja"}, "ja"), ({"LANG": "C.UTF-8"}, "en"),
    ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C.UTF-8"}, "en"), ({"LC_MESSAGES": "ja_JP.eucJP"}, "ja"),
    ({"LC_ALL": "", "LC_MESSAGES": "", "LANG": "ja_JP"}, "ja"), ({"LC_ALL": "ja_JP.UTF-8"}, "ja"),
    ({"QLORA_NB_LANG": "ja", "LC_ALL": "en_US.UTF-8"}, "ja"), ({"QLORA_NB_LANG": "en", "LANG": "ja_JP"}, "en"),
    ({"QLORA_NB_LANG": "", "LANG": "ja_JP"}, "ja"), ({"LANG": "jam_JM"}, "en"), ({"LANG": "POSIX"}, "en"),
])
def test_which_language(environment, expected):
    assert locale_language(environment) == expected


@pytest.mark.parametrize("line, expected", [
    ("--lang ja finetune", ("ja", "finetune")), ("finetune --lang=ja --rank 4", ("ja", "finetune --rank 4")),
    ("memory micro --lang en", ("en", "memory micro")), ("generate -- --lang", (None, "generate -- --lang")),
    ("--lang ja --lang en runs", ("en", "runs")),
])
def test_what_lang_says(line, expected):
    found, rest = take_language(line.split())
    assert (found, " ".join(rest)) == expected


def test_a_table_is_told_in_the_language_of_the_page():
    table = pd.DataFrame({"loss": [0.5, 0.25], "verdict": ["holds", "no such word"]},
                         index=pd.Index(["held-out, loss", "8 bits"], name="method"))
    assert told(table) is table
    with speaking("ja"):
        found = told(table)
        series = told(pd.Series({("loss", 8): "yes"}, name="count"))
        assert list(found.columns) == [spoken("loss"), spoken("verdict")]
        assert list(found.index) == [f"{spoken('held-out')}、{spoken('loss')}", f"8{spoken('bits')}"]
        assert found.index.name == spoken("method") and found.iloc[0, 1] == spoken("holds")
        assert found.iloc[1, 1] == "no such word" and found.iloc[:, 0].tolist() == [0.5, 0.25]
        assert series.to_dict() == {(spoken("loss"), 8): spoken("yes")} and series.name == spoken("count")
    assert WIDE.search("".join(map(str, [*found.columns, *found.index])))


def test_every_word_of_a_table_has_its_japanese():
    texts = json.loads((Path(catalogue.WORDS)).read_text(encoding="utf-8"))["text"]
    assert [word for word in catalogue.TABLES if not texts.get(word)] == []


ERRORS = [
    ("finetun", "'finetun'というコマンドはありません。finetuneのことですか。"),
    ("finetune --rank 0", "--rankに0が指定されています。1以上にしてください。"),
    ("finetune --lr 1e-4", "--learning-rateのことですか。"),
    ("finetune --rank", "値を1つ指定してください"),
    ("finetune --quantization nf5", "--quantizationに'nf5'という値はありません。nf4"),
    ("finetune extra words", "余分な引数'extra'"),
    ("finetune --data missing.jsonl", "ファイルmissing.jsonlがありません。"),
    ("finetune --init pissa", "最大の方向を取り出すもの"),
    ("finetune --resume --overwrite", "同時に指定できません"),
    ("memory micro --gpu T5", "'T5'というGPUは登録されていません。T4"),
    ("push runs/micro", "例: qlora-nb push runs/micro owner/name"),
    ("generate --adapter ./nowhere question", "./nowhereにadapter_config.jsonがありません。"),
    ("--lang fr finetune", "'fr'という言語はありません。使えるのはen, jaです"),
]


@pytest.mark.parametrize("line, japanese", ERRORS)
def test_an_error_is_japanese_and_under_it_english(line, japanese, called, monkeypatch):
    english = called(*line.split())
    monkeypatch.setenv("QLORA_NB_LANG", "ja")
    done = called(*line.split())
    first, *rest = done.stderr.splitlines(keepends=True)
    assert done.returncode == english.returncode == 2 and not WIDE.search(english.stderr)
    assert japanese in first, first
    assert "".join(rest) == english.stderr  # to the byte


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_japanese_throughout(command, called):
    page = called("--lang", "ja", "help", *command.split()).stdout
    texts = re.split(r"\n\n例:\n", page)[0]
    assert max(map(columns, page.splitlines())) <= 79
    assert not re.findall(r"\b[a-z]{2,}(?:[ \n]+[a-z]{2,}){2,}", re.sub(r"qlora-nb[a-z -]+", "", texts))
    for entry in re.split(r"\n(?=  -)", texts)[1:]:
        assert WIDE.search(entry), entry
    assert not re.search(r"default:|examples:|usage:|options\]", page)
    english = called("--lang", "en", "help", *command.split()).stdout
    assert not WIDE.search(english.replace("日本で一番高い山は何ですか。", ""))


def test_tables_and_progress_are_japanese():
    from rich.console import Console

    entry = ledger("micro", batch=4, sequence=512)
    console = Console(width=80, record=True, file=open(os.devnull, "w", encoding="utf-8"))
    with speaking("ja"):
        console.print(memory_table(entry), gpu_table(entry, ["T4"]))
        text = console.export_text()
        report = retold(str(DataReport(read=12, kept=8, dropped={"duplicate": 3, "too long": 1},
                                       first={"duplicate": 2})))
        asking = retold("asking the fine-tuned model 64 questions")
        steps = retold("学習: 30 of 250, loss 1.234, 17 s left")
    for words in ("4×512トークン", "オプティマイザの状態", "合計", "最大バッチ", "はい"):
        assert words in text, text
    assert not re.search(r"[a-z]{3,} [a-z]{3,}", text), text
    assert report == "12行を読み、8行を残しました。除いた行: 重複: 3（2行目）、長すぎる: 1", report
    assert asking == "ファインチューニングしたモデルに64問を質問しています", asking
    assert steps == "学習: 30/250, loss 1.234、残り17秒", steps


def test_a_table_keeps_labels_that_are_tuples():
    shapes = pd.DataFrame({"loss": [1.0, 2.0]}, index=pd.Index([(2, 3), (4,)], tupleize_cols=False, name="shape"))
    with speaking("ja"):
        table = told(shapes.assign(box="adapter").set_index("box", append=True))
        assert [*table.index] == [((2, 3), spoken("adapter")), ((4,), spoken("adapter"))]
        assert [*table.index.names] == [spoken("shape"), spoken("box")] and [*table.columns] == [spoken("loss")]
        assert told(shapes["loss"]).name == spoken("loss") != "loss"
        assert [*told(shapes).index] == [(2, 3), (4,)]


def test_a_sentence_of_others_is_printed_once():
    with speaking("ja"):
        assert both("no kernel image is available for execution on the device") == [
            "no kernel image is available for execution on the device"]


def test_the_catalogue_is_whole():
    assert catalogue.check() == []


def test_a_missing_a_stale_and_a_broken_message_are_found(tmp_path, monkeypatch):
    po = catalogue.opened(catalogue.CATALOGUE)
    first, second, third = [entry for entry in po if "{" in entry.msgid][:3]
    first.msgstr, second.flags, third.msgstr = "", ["fuzzy"], "何もない"
    po.append(type(first)(msgid="said by nobody", msgstr="誰も言わない", comment="text"))
    monkeypatch.setattr(catalogue, "CATALOGUE", tmp_path / "command.po")
    catalogue.store(catalogue.CATALOGUE, str(po))
    wrong = "\n".join(catalogue.check())
    for words in ("no translation", "has changed", "placeholders differ", "said nowhere", "ja.json is not"):
        assert words in wrong, wrong


def test_every_template_is_found_from_an_instance_of_itself():
    words = json.loads(catalogue.WORDS.read_text(encoding="utf-8"))
    assert len(words["sentence"]) > 350 and len(words["part"]) > 80
    for kind in ("sentence", "part"):
        for english, japanese in words[kind].items():
            names = catalogue.PLACE.findall(english)
            values = {name: "7" if name in ("count", "total") else f", X{number}" if f"}}{{{name}}}" in english else f"X{number}"
                      for number, name in enumerate(names)}
            assert translate(english.format(**values), kind) == japanese.format(**values), english


def test_values_stay():
    "A file that is called like a word of ours keeps its name."
    for name in ("held-out", "held_out rows.json", "yes", "preset", "{a}"):
        assert f"ファイル{name}が" in translate(f"there is no file {name}; check the path")


def test_status_and_output_for_programs_are_the_same(called, monkeypatch):
    lines = ["--version", "completion bash", "memory micro --gpu T4 --json", "runs --json ."]
    before = [called(*line.split()) for line in lines]
    for line, english in zip(lines, before):
        done = called("--lang", "ja", *line.split())
        assert (done.returncode, done.stdout) == (english.returncode, english.stdout), line


def test_the_language_ends_with_the_command(called, monkeypatch):
    called("--lang", "ja", "finetun")
    assert main(["finetun"]) == 2 and not WIDE.search(called("finetun").stderr)
