"""The command `qlora-nb memory`: what it prints; what it refuses is in bad_inputs/memory.py."""
import json
import re

import pytest

from bad_inputs.memory import CONFIG
from qlora_nb.core import InputError
from qlora_nb.activations import ledger
from qlora_nb.fits import GPUS, NotCounted, inference, largest_batch
from qlora_nb.memory import MODELS, Recipe, read_shape
from qlora_nb.traced import of_folder


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
        gradient_checkpointing=False))
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


def test_lean_is_for_families_that_can_be_trained_lean(called, folder):
    with pytest.raises(InputError, match="gpt_neox and gpt_neox_japanese .* llama"):
        ledger("llama-7b", lean=True)
    done = called("memory", "llama-7b", "--sequence-length", "512")
    plain = ledger("llama-7b", Recipe(batch=4, sequence=512, dropout=0.05, padding=True))
    assert bytes_printed(done.stdout) == plain.parts | {"total": plain.total}
    assert "llama model is counted as peft prepares it" in done.stdout
    assert "peft prepares" not in called("memory", folder()).stdout


@pytest.mark.parametrize("name", MODELS)
def test_every_built_in_model_has_a_ledger(name):
    entry = ledger(name, Recipe(batch=1, sequence=128))
    assert entry.total == sum(entry.parts.values()) and min(entry.parts.values()) >= 0
    assert ledger(name, Recipe(batch=2, sequence=128)).total > entry.total


GROUPED = {"model_type": "llama", "num_attention_heads": 32, "num_key_value_heads": 8,
           "hidden_size": 4096, "intermediate_size": 14_336, "vocab_size": 128_256}


def test_answering_takes_grouped_queries_that_training_refuses(folder):
    shape = read_shape(str(folder(**GROUPED, num_hidden_layers=32)))
    entry = inference(shape, batch=1, sequence=1000)
    assert entry["KV cache"] == 2 * 2 * 32 * 1000 * 8 * 128  # 16 bits; keys and values; 8 heads
    with pytest.raises(InputError, match="grouped queries"):
        ledger(shape)
    with pytest.raises(InputError, match="sequence is 0"):
        inference(shape, sequence=0)


def test_a_family_without_formulas_is_counted_by_its_own_code(called, folder):
    place = folder(model_type="qwen2", num_attention_heads=22, num_key_value_heads=2)
    done = called("memory", place, "--gpu", "T4", "--json", "--rank", "8")
    said, = json.loads(done.stdout)
    h, kv, layers = 2816, 2 * 128, 36
    matrices = layers * (2 * h * h + 2 * h * kv + 3 * h * 4 * h)
    adapter = 4 * 8 * layers * (4 * h + 2 * (h + kv) + 3 * 5 * h)
    assert said["parts"]["matrices"] == matrices // 2 and said["parts"]["adapter"] == adapter
    assert said["total"] == sum(said["parts"].values()) and said["recipe"]["lean"]
    # Checkpointing keeps each layer's input in float32, and hardly more: the loss is lean.
    assert 0 <= said["parts"]["activations"] / (4 * 4 * 1024 * layers * h) - 1 < 0.1
    assert said["gpus"]["T4"]["fits"] == (said["total"] <= GPUS["T4"])
    printed = called("memory", place, "micro", "--gpu", "T4")
    assert "A qwen2 model is counted by its own code" in printed.stdout


def test_what_is_not_counted_is_said(called, folder):
    place = folder(model_type="qwen2", num_attention_heads=22, num_key_value_heads=2)
    done = called("memory", place, "--gpu", "T4", "--json", "--method", "lora8")
    said, = json.loads(done.stdout)
    assert said["held"] == sum(said["parts"].values()) and said["total"] is None
    printed = called("memory", place, "micro", "--gpu", "T4", "--method", "lora8")
    assert "of a qwen2 model on an 8-bit base are not counted" in printed.stdout
    assert "total" in printed.stdout
    done = called("memory", place, "--json", "--method", "lora8", "--processes", "8", "--shard")
    each, = json.loads(done.stdout)
    assert each["parts"] == {name: size if name == "constants" else -(-size // 8)
                             for name, size in said["parts"].items()}


def test_grouped_queries_and_code_that_needs_values(folder):
    shape = of_folder(folder(**GROUPED, num_hidden_layers=32))
    few, many = (ledger(shape, Recipe(lean=True, batch=n)).total for n in (1, 2))
    assert few < many and shape.weights == 32 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14_336)
    assert largest_batch(shape, Recipe(lean=True), "T4") >= 1
    assert len(shape.traces) == 1  # one trace answers for each batch, sequence and rank
    shape.config.hidden_act = "unknown"
    with pytest.raises(NotCounted, match="does not run on tensors without memory"):
        ledger(shape, gradient_checkpointing=False)
