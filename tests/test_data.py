"""Rows as people publish them: read as they were meant, counted, and encoded fast."""
import io
import json
import sys
from collections import Counter
from dataclasses import asdict, replace

import pandas
import pytest

from qlora_nb.core import InputError
from qlora_nb.data import FORMATS, IGNORED, Examples, encode_dialogue, encode_all, split
from qlora_nb.exam import load_data
from qlora_nb.micro import micro_folder
from qlora_nb.options import (
    MEANINGS, FinetuneOptions, column_names, continued, differences, resolve,
)
from qlora_nb.plan import make_plan
from qlora_nb.readers import (
    ANSWERS, COLUMN_NAMES, DIALOGUES, EXTRA, QUESTIONS, DataReport, conversations, read_rows, watched,
)
from qlora_nb.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(micro_folder() / "model")


def dialogue(*texts):
    roles = ["user", "assistant"] * len(texts)
    return [{"role": role, "content": text} for role, text in zip(roles, texts)]


# --- speed ---

TALKS = [
    dialogue("空は何色ですか。", "青です。"),
    dialogue("一行目\n二行目 </s> 🐈", "  はい。\r\nそうです。", "なぜ。", "知りません。"),
    [{"role": "system", "content": "短く答えます。"}, *dialogue("雪は。", "白です。")],
    dialogue("", "問いのない答え。"),
]


def one_by_one(turns, tokenizer, form):
    "The tokens and labels of a dialogue, a tokenizer's call for each stretch of text."
    def cut(text):
        return tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids

    def broken(text):
        return text.replace("\r\n", "\n").replace("\n", form.newline)

    ids, labels, before, ends = [], [], "", []
    for turn in turns:
        if turn["role"] != "assistant":
            lead = form.user if turn["role"] == "user" else ""
            before += lead + broken(turn["content"]) + form.newline
            continue
        prompt, answer = cut(before + form.assistant), cut(broken(turn["content"]))
        ids, labels = ids + prompt + answer, labels + [IGNORED] * len(prompt) + answer
        before, ends = form.newline, [*ends, len(ids)]
    for end in ends[:-1]:
        labels[end] = tokenizer.eos_token_id
    return {"input_ids": [*ids, tokenizer.eos_token_id], "labels": [*labels, tokenizer.eos_token_id]}


@pytest.mark.parametrize("name", ["rinna", "plain"])
def test_batches_make_the_tokens_of_single_texts(tokenizer, name):
    shipped = conversations(read_rows(micro_folder() / "train.jsonl"))
    form = FORMATS[name].__class__(name, FORMATS[name].user, FORMATS[name].assistant, "<NL>")
    talks = [*TALKS, *shipped]
    found = encode_all(talks, tokenizer, FORMATS[name], 10_000)
    assert len(found) == len(talks) > 2000, "more than two batches"
    for turns, example in zip(talks, found):
        assert example == one_by_one(turns, tokenizer, form)
    assert encode_dialogue(TALKS[1], tokenizer, FORMATS[name]) == found[1]


def test_examples_are_a_sequence(tokenizer):
    plain = [encode_dialogue(turns, tokenizer, FORMATS["rinna"]) for turns in TALKS]
    held = Examples(plain)
    assert list(held) == plain and held[-2:] == plain[-2:] and len(held) == len(plain)
    with pytest.raises(IndexError):
        held[len(plain)]


class Pipe(io.StringIO):
    "A stream that is no terminal, for a clock that runs fast."


def test_a_stream_that_is_no_terminal_gets_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Pipe())
    clock = iter(range(10**6))
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
    assert list(watched(range(3000), "reading", 3000)) == list(range(3000))
    said = sys.stderr.getvalue()
    assert "\r" not in said and said.endswith("\n")
    lines = said.splitlines()
    seconds = next(clock)  # by this clock, which is asked for each row
    assert seconds / 20 <= len(lines) <= seconds / 10
    assert lines[-1].startswith("reading: 3000 of 3000 rows")


def test_a_short_reading_says_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Pipe())
    assert list(watched(range(10), "reading", 10)) == list(range(10))
    assert sys.stderr.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", None)
    assert list(watched(range(10), "reading", 10)) == list(range(10))


# --- files as people publish them ---

ASKED = dialogue("空は何色ですか。", "青です。")
OASST = [  # as pandas writes them: a number that can be missing is a float
    {"message_id": "a", "parent_id": None, "role": "prompter", "text": "What colour?",
     "text_ja": "空は何色ですか。", "rank": None, "deleted": False, "ng_translation": "0"},
    {"message_id": "b", "parent_id": "a", "role": "assistant", "text": "Red.", "text_ja": "赤です。",
     "rank": 1.0, "deleted": False, "ng_translation": "0"},
    {"message_id": "c", "parent_id": "a", "role": "assistant", "text": "Blue.",
     "text_ja": "青です。", "rank": 0.0, "deleted": False, "ng_translation": "0"}]
PUBLISHED = {  # name: (rows, columns that nobody reads)
    "alpaca": ([{"instruction": "空は何色ですか。", "input": "", "output": "青です。",
                 "text": "### Instruction: …"}], {"text"}),
    "dolly": ([{"instruction": "空は何色ですか。", "context": "", "response": "青です。",
                "category": "open_qa"}], {"category"}),
    "dolly, translated": ([{"output": "青です。", "input": "", "index": "0", "category": "open_qa",
                            "instruction": "空は何色ですか。"}], {"category", "index"}),
    "ichikara": ([{"ID": "003-001", "text": "空は何色ですか。", "output": "青です。"}], {"ID"}),
    "translations beside originals": (
        [{"prompt": "What colour?", "prompt_ja": "空は何色ですか。", "response": "Blue.",
          "response_ja": "青です。", "ng_translation": 0.0}], {"ng_translation"}),
    "sharegpt": ([{"id": "1", "conversations": [{"from": "human", "value": "空は何色ですか。"},
                                                {"from": "gpt", "value": "青です。"}]}], {"id"}),
    "openai": ([{"messages": [{"role": "user", "content": "空は何色ですか。"},
                              {"role": "assistant", "content": "青です。", "weight": 1}]}], set()),
    "guanaco": ([{"text": "### Human: 空は何色ですか。### Assistant: 青です。"}], set()),
    "japanese headers": ([{"質問": "空は何色ですか。", "回答": "青です。"}], set()),
    "capital letters": ([{"Question ": "空は何色ですか。", " Answer": "青です。"}], set()),
    "oasst": (OASST, set()),
    "a form's headers": ([{"タイムスタンプ": "2026/11/29", "質問内容": "空は何色ですか。", "回答例": "青です。"}],
                         {"タイムスタンプ"}),
    "prompt and completion as messages": ([{"prompt": ASKED[:1], "completion": ASKED[1:]}], set()),
    "lmsys": ([{"conversation_id": "1", "conversation": ASKED, "language": "Japanese"}],
              {"conversation_id", "language"}),
    "jsquad on the hub": (
        [{"id": "a0", "title": "空", "question": "空は何色ですか。", "is_impossible": False,
          "answers": {"text": ["青です。", "青"], "answer_start": [0, 0]}}],
        {"id", "title", "is_impossible"}),
    "messages with the columns they were made of": (
        [{"id": 1, "messages": ASKED, "instruction": "空は？", "output": "青。"}],
        {"id", "instruction", "output"}),
}
REFUSED = [ASKED[0], {"role": "assistant", "content": "赤です。"}]
SAID = "\n\nHuman: 空は何色ですか。\n\nAssistant: {}です。"
PREFERENCES = {  # one answer of two is the better one
    "texts": ({"prompt": "空は何色ですか。", "chosen": "青です。", "rejected": "赤です。"}, set()),
    "orca's": ({"question": "空は何色ですか。", "chosen": "青です。", "rejected": "赤です。", "margin": 2},
               {"margin"}),
    "messages": ({"chosen": ASKED, "rejected": REFUSED}, set()),
    "messages behind a prompt": ({"prompt": ASKED[:1], "chosen": ASKED[1:], "rejected": REFUSED[1:]},
                                 set()),
    "messages that repeat the prompt": (
        {"prompt": "空は何色ですか。", "chosen": ASKED, "rejected": REFUSED, "score": 1}, {"score"}),
    "llama-factory's": (
        {"conversations": [{"from": "human", "value": "空は何色ですか。"}],
         "chosen": {"from": "gpt", "value": "青です。"}, "rejected": {"from": "gpt", "value": "赤です。"}},
        set()),
    "hh-rlhf": ({"chosen": SAID.format("青"), "rejected": SAID.format("赤")}, set()),
}


def as_read(path, rows, suffix):
    "The file that pandas writes of rows."
    table = pandas.DataFrame(rows)
    if suffix == ".csv":
        table.to_csv(path, index=False)
    elif suffix == ".tsv":
        table.to_csv(path, index=False, sep="\t", encoding="utf-16")
    elif suffix == ".parquet":
        table.to_parquet(path)
    elif suffix == ".json":
        table.to_json(path)
    else:
        table.to_json(path, orient="records", lines=True, force_ascii=False)
    return path


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".json", ".jsonl", ".jsonl.gz"])
def test_published_rows_are_read_as_pandas_writes_them(name, suffix, tmp_path):
    rows, unused = PUBLISHED[name]
    report = DataReport()
    read = read_rows(as_read(tmp_path / f"rows{suffix}", rows, suffix), report)
    assert conversations(read, report) == [ASKED]
    assert set(report.unused) == unused and (report.read, report.kept) == (len(rows), 1)
    assert all(column in str(report) for column in unused)
    assert bool(report.notes) == (suffix == ".tsv"), "UTF-16 is said"


@pytest.mark.parametrize("name", PREFERENCES)
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_the_chosen_answer_of_a_pair_is_read_and_said_to_be(name, suffix, tmp_path):
    row, unused = PREFERENCES[name]
    report = DataReport()
    read = read_rows(as_read(tmp_path / f"rows{suffix}", [row], suffix), report)
    assert conversations(read, report) == [ASKED]
    assert set(report.unused) == unused
    assert "trained on the chosen answers; the rejected ones are not used" in str(report)


def test_squads_own_file(tmp_path):
    asked = [{"id": f"a{number}", "question": f"{number}は？", "is_impossible": False,
              "answers": [{"text": "はい", "answer_start": 0}] * number} for number in range(3)]
    paragraphs = [{"context": "本文です。", "qas": asked}]
    (tmp_path / "train-v1.1.json").write_text(json.dumps(
        {"version": "1.1", "data": [{"title": "題", "paragraphs": paragraphs}] * 2}), encoding="utf-8")
    report = DataReport()
    found = conversations(read_rows(tmp_path / "train-v1.1.json", report), report)
    assert found == [dialogue(f"{number}は？\n本文です。", "はい") for number in (1, 2)]
    assert report.read == 6 and report.dropped == {"duplicate": 3, "without an answer": 1}


NAMED = [  # columns, the row, what is left
    ("question=件名,answer=返し", {"件名": "空は何色ですか。", "返し": "青です。", "本文": "x"}, {"本文"}),
    ("answer=正しい答え", {"質問": "空は何色ですか。", "回答": "赤です。", "正しい答え": "青です。"}, {"回答"}),
    ("question=a,b,answer=c", {"a,b": "空は何色ですか。", "c": "青です。"}, set()),
    ("messages=log", {"log": ASKED, "messages": REFUSED}, {"messages"}),
    ("question=title,chosen=good", {"title": "空は何色ですか。", "good": "青です。", "output": "x"},
     {"output"}),
    ("prompt=message_id,answer=role", {"message_id": "空は何色ですか。", "role": "青です。"}, set()),
]


@pytest.mark.parametrize("columns, row, unused", NAMED)
def test_columns_can_be_named(columns, row, unused):
    report = DataReport(read=1)
    assert conversations([row], report, column_names(columns)) == [ASKED]
    assert set(report.unused) == unused


@pytest.mark.parametrize("row, turns", [
    ({"質問": "空は何色ですか。", "ベストアンサー": "青です。"}, ASKED),
    ({"発話": "空は何色ですか。", "応答": "青です。"}, ASKED),
    ({"お問い合わせ": "空は何色ですか。", "回答": "青です。"}, ASKED),
    ({"質問（Q）": "空は何色ですか。", "回答 (A)": "青です。"}, ASKED),
    ({"質問": "空は何色ですか。", "採用": "青です。", "不採用": "赤です。"}, ASKED),
    ({"question": "空は何色ですか。", "response_j": "青です。", "response_k": "赤です。"}, ASKED),
])
def test_names_of_columns_that_people_use(row, turns):
    report = DataReport(read=1)
    assert conversations([row], report) == [turns] and not report.unused


def test_a_title_and_a_text_are_no_question_and_answer():
    with pytest.raises(InputError, match="columns タイトル, 本文 are not known"):
        conversations([{"タイトル": "空", "本文": "空は青い。"}], DataReport(read=1))


def test_every_meaning_of_a_column_is_one_that_readers_know():
    assert set(MEANINGS) == {*QUESTIONS, *ANSWERS, *EXTRA, *DIALOGUES, "system", "history", "chosen",
                             "rejected"} - {"conversation"}
    assert set(COLUMN_NAMES.values()) < set(MEANINGS)


def test_an_index_column_of_pandas_is_left(tmp_path):
    pandas.DataFrame(PUBLISHED["alpaca"][0]).to_csv(tmp_path / "rows.csv")
    assert conversations(read_rows(tmp_path / "rows.csv")) == [ASKED]


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp", "iso2022_jp", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_excels_tables(encoding, separator, tmp_path):
    lines = ["質問,回答,,", '"空は,何色;ですか。",青です。,,', ",,,", ""]
    text = "\r\n".join(line.replace(",", separator) for line in lines).replace("は" + separator, "は,")
    (tmp_path / "rows.csv").write_bytes(text.encode(encoding))
    report = DataReport()
    read = read_rows(tmp_path / "rows.csv", report)
    assert conversations(read, report) == [dialogue("空は,何色;ですか。", "青です。")]
    assert (report.read, report.dropped) == (1, {})
    assert bool(report.notes) == (encoding != "utf-8-sig")


def test_rows_of_several_kinds_in_one_file():
    "Parquet gives every row the columns of all."
    kinds = [PUBLISHED[name][0][0] for name in ("alpaca", "openai", "sharegpt", "ichikara", "oasst")]
    columns = {column: None for row in [*kinds, *OASST] for column in row}
    answers = [f"{number}です。" for number in range(4)]
    rows = [columns | row for row in [*kinds[:4], *OASST]]
    rows[0] |= {"output": answers[0]}
    rows[1] |= {"messages": dialogue("q", answers[1])}
    rows[2] |= {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": answers[2]}]}
    rows[3] |= {"output": answers[3]}
    for row in rows[:4]:
        del row["message_id"]
    report = DataReport(read=len(rows))
    found = conversations(rows, report)
    assert [turns[-1]["content"] for turns in found] == [*answers, "青です。"]
    assert set(report.dropped) == {"lower-ranked reply"}


def test_histories_and_system_prompts_are_turns():
    row = {"instruction": "それは何色ですか。", "output": "青です。", "system": "短く。",
           "history": [["空を見ましたか。", "はい。"]]}
    wanted = [{"role": "system", "content": "短く。"}, *dialogue("空を見ましたか。", "はい。", "それは何色ですか。", "青です。")]
    assert conversations([row]) == [wanted]
    assert conversations([row | {"history": str(row["history"])}]) == [wanted], "CSV holds text"
    assert conversations([row | {"history": dialogue("空を見ましたか。", "はい。")}]) == [wanted]
    assert conversations([{"system_prompt": "短く。", "question": "空は何色ですか。", "response": "青です。"}]
                         ) == [[wanted[0], *ASKED]], "OpenOrca's columns"
    beside = {"system": "短く。", "conversations": [
        {"from": "human", "value": "空は何色ですか。"}, {"from": "gpt", "value": "青です。"}]}
    assert conversations([beside]) == [[wanted[0], *ASKED]]


BAD_ROWS = [
    ({"instruction": "q", "output": 3}, "int in 'output'"),
    ({"instruction": "q", "output": ""}, "without an answer"),
    ({"instruction": "", "output": "a"}, "without a question"),
    ({"title": "a", "body": "b"}, "columns that are not known"),
    ({"messages": [{"role": "tool", "content": "x"}, *ASKED]}, "role 'tool'"),
    ({"messages": [{"role": ["user"], "content": "x"}, *ASKED]}, "role"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}, *ASKED]}, "list in 'content'"),
    ({"messages": "空は何色ですか。"}, "str in 'messages'"),
    ({"messages": ["空は何色ですか。"]}, "a message that is str"),
    ({"text": "空は青い。"}, "### Human:"),
    ({"instruction": "q", "output": "a", "history": [["一つ"]]}, "'history'"),
]


@pytest.mark.parametrize("row, reason", BAD_ROWS)
def test_a_bad_row_costs_itself_only(row, reason):
    report = DataReport(read=2)
    assert conversations([PUBLISHED["alpaca"][0][0], row], report) == [ASKED]
    (said, count), = report.dropped.items()
    assert reason in said and count == 1 and "(row 2)" in str(report)


def test_replies_without_ranks_are_said_to_be_unranked():
    bare = [{key: value for key, value in row.items() if key != "rank"} for row in OASST]
    for rows, first in [(bare, "赤です。"), ([bare[0], bare[2], bare[1]], "青です。")]:
        report = DataReport()
        assert conversations(rows, report)[0][1]["content"] == first
        assert "without ranks: 1;" in str(report)


@pytest.mark.parametrize("change, answer", [
    ({"rank": float("nan")}, "赤です。"), ({"rank": "0"}, "青です。"), ({"deleted": True}, "赤です。"),
    ({"review_result": False}, "赤です。"), ({"text_ja": None}, "Blue."), ({"text_ja": 3}, "赤です。"),
    ({"parent_id": float("nan")}, "赤です。"), ({"role": "tool"}, "赤です。")])
def test_trees_with_odd_messages(change, answer):
    assert conversations([*OASST[:2], OASST[2] | change])[0][1]["content"] == answer


@pytest.mark.parametrize("name, content, place", [
    ("a.json", '[\n{"a": "b"},\n{"a" "b"}\n]', "line 3"),
    ("a.json", '{"data": [\n{"a": "b"},\n{"a" "b"}\n]}', "line 3"),
    ("a.jsonl", '{"a": "b"}\n\n{"a": "b"\n', "line 3"),
    ("a.jsonl", '[\n{"a": "b"},\n{"a": b}\n]', "line 3"),
    ("a.csv", 'a,b\n"1\n2",3\n4\n5,6\n', "line 4"),
    ("a.csv", 'a,b\n1,2\n3,"4\n5,6\n7,8\n', "line 3"),
    ("a.csv", "instruction,output,output\n1,2,3\n", "'output' stands there twice"),
    ("a.json", "[" * 100_000, "nested too deeply"),
    ("a.jsonl.gz", "no gzip", "cannot be read"),
    ("a.json", "[" + "9" * 5000 + "]", "line 1"),
])
def test_faults_are_named_by_their_line(name, content, place, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=place):
        list(read_rows(tmp_path / name))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_pretty_objects_behind_each_other_are_rows(name, tmp_path):
    rows = [{"instruction": f"{number}は？", "output": "はい。"} for number in range(3)]
    text = "\n".join(json.dumps(row, indent=2) for row in rows)
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_rows(tmp_path / name) == rows
    (tmp_path / name).write_text(text.replace("}\n{", "}\n{,", 1), encoding="utf-8")
    with pytest.raises(InputError, match="line 5"):
        read_rows(tmp_path / name)


def test_bytes_of_no_encoding_are_named_by_their_line(tmp_path):
    (tmp_path / "a.csv").write_bytes("質問,回答\nあ,い\nう,え".encode("cp932") + b"\x83\xff\n")
    with pytest.raises(InputError, match="line 3 is not UTF-8: the file looks like cp932"):
        read_rows(tmp_path / "a.csv")


# --- what is held out ---

def spare(tmp_path, rows, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return make_plan(FinetuneOptions(data=str(path), sequence_length=128, **options))


def made(count):
    return [{"instruction": f"{number}番の質問です。", "output": "はい。"} for number in range(count)]


@pytest.mark.parametrize("count, held", [(10, 1), (70, 7), (1000, 64)])
def test_held_out_rows_are_a_tenth_at_most_and_counted(count, held, tokenizer, tmp_path):
    data = load_data(spare(tmp_path, made(count)), tokenizer)
    assert (len(data.train), len(data.exams["held-out"].questions)) == (count - held, held)
    assert f"read {count:,} rows, kept {count - held}, held out {held}" in str(data.report)


def test_held_out_rows_never_take_most(tokenizer, tmp_path):
    with pytest.raises(InputError, match="would take most of the 70 conversations"):
        load_data(spare(tmp_path, made(70), held_out=64), tokenizer)
    assert len(load_data(spare(tmp_path, made(70), held_out=35), tokenizer).train) == 35


def test_a_question_asked_often_does_not_empty_the_held_out_part():
    talks = [dialogue("いつもの質問", f"{number}") for number in range(30)]
    talks += [dialogue(f"{number}番", "a") for number in range(70)]
    for seed in range(10):
        assert [len(part) for part in split(talks, 10, seed)] == [90, 10]


def test_rows_to_evaluate_with_that_are_too_long_are_counted_or_refused(tokenizer, tmp_path):
    long = [{"instruction": f"{i}番。" * 200, "output": "はい。"} for i in range(3)]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*long, *made(2)]), encoding="utf-8")
    options = spare(tmp_path, made(20), eval_data=str(path))
    assert load_data(options, tokenizer).report.dropped == {"held-out row too long": 3}
    path.write_text("".join(json.dumps(row) + "\n" for row in long), encoding="utf-8")
    with pytest.raises(InputError, match="every held-out row is longer than 128 tokens"):
        load_data(options, tokenizer)


# --- several sources ---

def mixed(tmp_path, *parts, **options):
    "A plan on files with these rows and weights."
    data = []
    for number, (rows, weight) in enumerate(parts):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        data.append(f"{path}{weight}")
    return make_plan(FinetuneOptions(data=data, sequence_length=128, **options))


def test_weights_say_how_often_a_row_comes_and_held_out_rows_never_do(tokenizer, tmp_path):
    others = [{"質問": f"{number}個目は何ですか。", "回答": "はい。"} for number in range(40)]
    plan = mixed(tmp_path, (made(20), ":2"), (others, ":0.5"), (made(5), ""))
    data, again = load_data(plan, tokenizer), load_data(plan, tokenizer)
    assert list(data.train) == list(again.train), "the same rows in the same order"
    assert data.report.dropped == {f"in an earlier --data ({tmp_path / '2.jsonl'})": 5}
    counts = Counter(tokenizer.decode(row["input_ids"]) for row in data.train)
    asked = Counter("番の" in text for text in counts)
    assert sum(asked.values()) == len(counts) and len(data.exams["held-out"].questions) == 6
    held = sum("番の" in question for question in data.exams["held-out"].questions)
    assert asked[True] == 20 - held and asked[False] == round((40 - 6 + held) / 2)
    assert {count for text, count in counts.items() if "番の" in text} == {2}
    assert {count for text, count in counts.items() if "番の" not in text} == {1}
    held_out = {tokenizer.decode(row["input_ids"]) for row in data.exams["held-out"].examples}
    assert len(held_out) == 6 and not held_out & counts.keys()
    assert [(source["weight"], source["rows"]) for source in data.report.sources] == [
        (2, 20), (.5, 40), (1, 5)]
    prints = [source["sha256"] for source in data.report.sources]
    assert len(set(prints)) == 3 and prints == [source["sha256"] for source in again.report.sources]
    assert "1.jsonl: 40 rows, each 0.5 times" in str(data.report)
    seeded = load_data(replace(plan, seed=1, eval_data=str(tmp_path / "0.jsonl")), tokenizer)
    assert len(seeded.train) == 40 + 20


def test_a_resumed_run_must_name_the_same_sources():
    options = resolve(FinetuneOptions(data=["a.jsonl:2", "b.csv"], columns="answer=返し"))
    stored = json.loads(json.dumps(asdict(options)))
    assert differences(stored, options) == []
    assert continued(stored, FinetuneOptions(resume=True)) == replace(options, resume=True)
    for other in (["a.jsonl", "b.csv"], ["b.csv", "a.jsonl:2"], "a.jsonl:2"):
        assert len(differences(stored, replace(options, data=other))) == 1
    assert len(differences(stored, replace(options, columns=None))) == 1


def test_named_columns_may_be_those_of_one_source(tokenizer, tmp_path):
    titled = [{"title": f"{number}は？", "reply": "はい。"} for number in range(10)]
    plan = mixed(tmp_path, (made(10), ""), (titled, ""), columns="question=title,answer=reply")
    assert len(load_data(plan, tokenizer).train) == 18
    with pytest.raises(InputError, match="0.jsonl: --columns names title, reply, which no row has"):
        load_data(replace(plan, data=plan.data[0]), tokenizer)
    with pytest.raises(InputError, match="--columns names titel, which no row of .*0.jsonl and"):
        load_data(replace(plan, columns="question=titel", data=[plan.data[0], "micro"]), tokenizer)


# --- roles that a user writes ---

@pytest.mark.parametrize("name", ["rinna", "plain"])
@pytest.mark.parametrize("role", ["user", "system", "assistant"])
def test_no_text_opens_a_turn(name, role, tokenizer):
    form = FORMATS[name]
    for lead in (form.user, form.assistant):
        turns = dialogue("一", f"二\n{lead}偽", "三", "四") if role == "assistant" else [
            {"role": role, "content": f"{'' if role == 'system' else '一'}\n{lead}偽"}, *dialogue("二", "三", "三", "四")]
        text = tokenizer.decode(encode_dialogue(turns, tokenizer, form)["input_ids"])
        assert (text.count("<NL>" + form.user), text.count("<NL>" + form.assistant)) in [(1, 2), (2, 2)]
        assert f"「{lead}偽」" in text
