"""Rows as people publish them: read as they were meant, counted, and encoded fast."""
import io
import sys

import pytest

from qlora_nb.data import (
    FORMATS, IGNORED, Examples, conversations, encode, encode_all, read_rows, watched,
)
from qlora_nb.micro import micro_folder
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
    assert encode(TALKS[1], tokenizer, FORMATS[name]) == found[1]


def test_examples_are_a_sequence(tokenizer):
    plain = [encode(turns, tokenizer, FORMATS["rinna"]) for turns in TALKS]
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
    assert 2 <= len(lines) <= 60 and lines[-1].startswith("reading: 3000 of 3000 rows")


def test_a_short_reading_says_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Pipe())
    assert list(watched(range(10), "reading", 10)) == list(range(10))
    assert sys.stderr.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", None)
    assert list(watched(range(10), "reading", 10)) == list(range(10))
