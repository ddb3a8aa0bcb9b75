"""Tokenizers that do not fit their model, or themselves."""
import json

from qlora_nb.tokenizer import train_sentencepiece

from bad_inputs import edit_json
from bad_inputs.checkpoints import content, spoiled

LETTERS = ["あいうえお かきくけこ さしすせそ"] * 20


def added(*entries):
    "Tokens that tokenizer.json adds, as [text, id]."
    def spoil(model):
        file = model / "tokenizer.json"
        known = json.loads(file.read_text(encoding="utf-8"))["added_tokens"]
        new = [known[0] | {"content": text, "id": id, "special": False} for text, id in entries]
        edit_json(file, added_tokens=known + new)
    return spoil


def without_spiece(spoil):
    "The same, with tokenizer.json alone."
    def alone(model):
        (model / "spiece.model").unlink()
        spoil(model)
    return alone


def other_spiece(**options):
    "A SentencePiece model of its own in place of the model's."
    def spoil(model):
        train_sentencepiece(LETTERS, model / "spiece.model", 300, **options)
        (model / "tokenizer.json").unlink()
    return spoil


def settings(**changes):
    return lambda model: edit_json(model / "tokenizer_config.json", **changes)


def nothing_left(model):
    for name in ("spiece.model", "tokenizer.json"):
        (model / name).unlink()


def no_end(model):
    for name in ("tokenizer_config.json", "config.json"):
        edit_json(model / name, eos_token=None, eos_token_id=None)


def padded_outside(model):
    added(["<|pad|>", 2048])(model)
    settings(pad_token="<|pad|>")(model)


ROWS = [
    spoiled("a model without a tokenizer", nothing_left, ["no tokenizer", "spiece.model"]),
    content("a SentencePiece file that breaks off", "spiece.model", b"\n\x0e\n\x05[PAD]",
            ["spiece.model", "damaged"]),
    spoiled("a SentencePiece model of another algorithm", other_spiece(model_type="bpe"),
            ["another algorithm", "unigram"]),
    spoiled("a tokenizer.json that breaks off", without_spiece(
        lambda model: (model / "tokenizer.json").write_text('{"version": "1.0", ')),
        ["tokenizer.json"]),
    spoiled("a tokenizer without an end token", without_spiece(no_end),
            ["end-of-sequence", "eos_token"]),
    spoiled("a pad token that the model has no row for", without_spiece(padded_outside),
            ["'<|pad|>'", "2048"]),
    spoiled("an added token that the model has no row for", added(["<|user|>", 2048]),
            ["'<|user|>'", "2048", "rows"]),
    spoiled("an added token with the id of another", added(["<|user|>", 300]),
            ["'<|user|>'", "300"]),
    spoiled("a tokenizer with more pieces than the model has rows",
            lambda model: edit_json(model / "config.json", vocab_size=1000), ["1000"]),
    spoiled("an end token that is a number", settings(eos_token=3), ["eos_token", "3"]),
    content("a tokenizer_config.json that is a list", "tokenizer_config.json", "[]",
            ["tokenizer_config.json", "list"]),
    content("an added_tokens.json with a list for an id", "added_tokens.json", '{"<|a|>": [1]}',
            ["added tokens"]),
    content("an added_tokens.json with a gap", "added_tokens.json", '{"<|a|>": 2060}',
            ["'<|a|>'", "2060"]),
]
