"""The micro model: what ships, and that the recipe makes all of it."""
import json
import warnings

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qlora_nb.micro import corpus, make_micro, micro_folder, questions
from qlora_nb.readers import read_rows
from qlora_nb.tokenizer import load_tokenizer

TEXTS = ["ユーザー: 青森県の名産は何ですか。<NL>システム: ", "鬱蒼とした森 🦊", "  二つの  空白 ", "ｱﾙﾌｧ ＡＢＣ"]


def test_the_package_data_is_small_and_complete():
    files = {path.name: path.stat().st_size for path in micro_folder().rglob("*") if path.is_file()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
            "tokenizer_config.json", "spiece.model", "train.jsonl", "held_out.jsonl",
            "rephrased.jsonl", "recipe.json"} == set(files)
    assert sum(files.values()) <= 8_000_000


def test_the_model_loads_without_a_word(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = AutoModelForCausalLM.from_pretrained(micro_folder() / "model", dtype=torch.float32)
    assert "rope_parameters" in json.loads((micro_folder() / "model" / "config.json").read_text())
    printed = capfd.readouterr()
    assert "warn" not in (printed.out + printed.err).lower()
    assert all(p.isfinite().all() for p in model.parameters())


def test_auto_tokenizer_reads_what_our_loader_reads():
    ours = load_tokenizer(micro_folder() / "model")
    theirs = AutoTokenizer.from_pretrained(micro_folder() / "model")
    for text in TEXTS + corpus(documents=200):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text


def test_the_recipe_makes_a_whole_folder(tmp_path):
    folder = tmp_path / "micro"
    recipe = make_micro(folder, tokens=3 * 32 * 128, documents=2_000)
    assert json.loads((folder / "recipe.json").read_text()) == recipe and recipe["steps"] == 3
    shipped = {path.relative_to(micro_folder()) for path in micro_folder().rglob("*")}
    assert {path.relative_to(folder) for path in folder.rglob("*")} == shipped
    for name in ("model/spiece.model", "model/tokenizer.json", "model/tokenizer_config.json",
                 "model/config.json", "train.jsonl", "held_out.jsonl", "rephrased.jsonl"):
        assert (folder / name).read_bytes() == (micro_folder() / name).read_bytes(), name


def test_another_seed_makes_another_world_with_the_same_design():
    other = questions(seed=1)
    assert other["train"] != questions()["train"]
    held_out = {row["instruction"] for row in other["held_out"]}
    assert not held_out & {row["instruction"] for row in other["train"]}
    assert 200 <= len(held_out) <= 400


def test_rows_have_the_columns_that_are_promised():
    for name in ("train", "held_out", "rephrased"):
        for row in read_rows(micro_folder() / f"{name}.jsonl"):
            assert set(row) == {"instruction", "output", "relation", "needs_knowledge"}
            assert isinstance(row["needs_knowledge"], bool)
