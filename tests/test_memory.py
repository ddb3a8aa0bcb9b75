"""The command `qlora-nb memory`: what it prints, and every way to ask it something wrong."""
import json
import re

import pytest

from qlora_nb.memory import MODELS, Recipe, ledger
from test_cli import refused

CONFIG = {
    "model_type": "gpt_neox", "hidden_size": 2816, "num_hidden_layers": 36,
    "num_attention_heads": 22, "vocab_size": 32_000, "intermediate_size": 11_264,
    "max_position_embeddings": 2048, "use_parallel_residual": False, "rotary_pct": 1.0,
    "tie_word_embeddings": False,
}


@pytest.fixture
def folder(tmp_path):
    "Write a configuration, with changes, and return its folder; None leaves a key out."
    def write(**changes):
        config = {key: value for key, value in (CONFIG | changes).items() if value is not None}
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return tmp_path
    return write


def bytes_printed(text: str) -> dict:
    "Part -> bytes, from the printed table."
    rows = re.findall(r"│ ([a-zA-Z ]+?) +│ +([\d,]+) │ +[\d.]+ │", text.split("┃ GPU")[0])
    return {name: int(size.replace(",", "")) for name, size in rows}


def test_the_command_prints_the_library_s_ledger(called):
    done = called("memory", "rinna/japanese-gpt-neox-3.6b", "--gpu", "t4", "--batch-size", "2",
                  "--sequence-length", "512", "--method", "lora", "--no-gradient-checkpointing")
    assert done.returncode == 0, done.stderr
    entry = ledger("rinna/japanese-gpt-neox-3.6b", Recipe(
        quantization="none", batch=2, sequence=512, dropout=0.05, padding=True, lean=True,
        checkpointing=False))
    assert bytes_printed(done.stdout) == entry.parts | {"total": entry.total}
    assert "T4" in done.stdout and "H200" not in done.stdout


def test_without_a_gpu_all_are_listed(called):
    done = called("memory", "micro")
    assert all(gpu in done.stdout for gpu in ("T4", "RTX4090", "H200", "laptop-8GB"))


def test_a_folder_needs_no_weights_and_agrees_with_the_table(called, folder):
    named = called("memory", "rinna/japanese-gpt-neox-3.6b")
    local = called("memory", folder())
    assert local.returncode == 0 and local.stdout == named.stdout


def test_new_and_old_words_for_the_rotation(called, folder):
    new = {"rope_parameters": {"partial_rotary_factor": 1.0, "rope_theta": 10_000.0}}
    assert called("memory", folder()).stdout == \
        called("memory", folder(rotary_pct=None, **new)).stdout


def test_the_command_works_as_a_process(command):
    done = command("memory", "micro", "--gpu", "T4")
    assert done.returncode == 0 and "total" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("arguments, words", [
    (["rinna/japanese-neox-3.6"], ["rinna/japanese-gpt-neox-3.6b"]),
    (["lama-7b"], ["llama-7b"]),
    (["./missing"], ["missing", "config.json"]),
    ([], ["one model"]),
    (["micro", "llama-7b"], ["one model"]),
    (["micro", "--gpu", "T5"], ["'T5'", "T4"]),
    (["micro", "--gpu", "rtx3900"], ["RTX3090"]),
    (["micro", "--rank", "0"], ["--rank is 0"]),
    (["micro", "--batch-size", "-1"], ["--batch-size is -1"]),
    (["micro", "--sequence-length", "0"], ["--sequence-length is 0"]),
    (["micro", "--sequence-length", "513"], ["513", "at most 512"]),
    (["micro", "--target-modules", "q_proj"], ["q_proj", "query_key_value"]),
    (["micro", "--dropout", "1.5"], ["dropout is 1.5"]),
    (["micro", "--ranks", "3"], ["--rank"]),
])
def test_wrong_words(called, tmp_path, arguments, words):
    refused(called("memory", *arguments), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changes, words", [
    ({"hidden_size": None}, ["lacks hidden_size", "config.json"]),
    ({"hidden_size": None, "vocab_size": None}, ["hidden_size", "vocab_size"]),
    ({"model_type": "bert"}, ["bert", "gpt_neox"]),
    ({"num_hidden_layers": 0}, ["num_hidden_layers", "is 0", "at least 1"]),
    ({"vocab_size": -32_000}, ["vocab_size", "-32000"]),
    ({"vocab_size": 3.5}, ["vocab_size", "3.5"]),
    ({"hidden_size": "wide"}, ["hidden_size", "wide"]),
    ({"intermediate_size": -1}, ["intermediate", "-1"]),
    ({"max_position_embeddings": 0}, ["context", "0"]),
    ({"num_attention_heads": 21}, ["2816", "21"]),
    ({"rotary_pct": "all"}, ["rotary", "all"]),
    ({"rope_parameters": 3}, ["rope_parameters"]),
    ({"model_type": "llama", "num_key_value_heads": 2}, ["grouped queries"]),
    ({"attention_bias": False}, ["attention_bias True"]),
])
def test_configurations_that_cannot_be_counted(called, folder, changes, words):
    refused(called("memory", folder(**changes)), *words)


@pytest.mark.parametrize("content, words", [
    ("{", ["config.json", "JSON"]), ("[]", ["no JSON object"]), ("null", ["no JSON object"]),
])
def test_files_that_are_no_configuration(called, tmp_path, content, words):
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    refused(called("memory", tmp_path), *words)


@pytest.mark.parametrize("name", MODELS)
def test_every_built_in_model_has_a_ledger(name):
    entry = ledger(name, Recipe(batch=1, sequence=128))
    assert entry.total == sum(entry.parts.values()) and min(entry.parts.values()) >= 0
    assert ledger(name, Recipe(batch=2, sequence=128)).total > entry.total
