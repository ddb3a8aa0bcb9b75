"""Adapters of every kind: merged, they are what base and adapter are, or they are refused."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from qlora_nb.adapters import load_adapted, merge, without_adapter
from qlora_nb.core import InputError
from qlora_nb.micro import micro_folder
from qlora_nb.options import GenerateOptions, MergeOptions
from qlora_nb.tokenizer import load_tokenizer
from stand_ins import tied_micro

MICRO = micro_folder() / "model"
LAYERS = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
CPU = torch.device("cpu")
TOKENS = torch.tensor([[5, 6, 300, *range(301, 330)]])


def lora(**changes):
    return peft.LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": LAYERS} | changes),
                           task_type="CAUSAL_LM")


KINDS = {
    "plain": lora(),
    "rank-stabilized": lora(use_rslora=True),
    "other ranks and alphas": lora(rank_pattern={"query_key_value": 2}, alpha_pattern={"dense": 3}),
    "DoRA": lora(use_dora=True),
    "bias of LoRA": lora(lora_bias=True),
    "all biases": lora(bias="all"),
    "tables and head whole": lora(modules_to_save=["embed_in", "lm_head"]),
    "a norm whole": lora(modules_to_save=["final_layer_norm"]),
    "some tokens": lora(trainable_token_indices=[5, 6, 300]),
    "LoRA on the table": lora(target_modules=[*LAYERS, "embed_in"]),
    "LoRA on the head": lora(target_modules=[*LAYERS, "lm_head"]),
    "one layer": lora(layers_to_transform=[1], layers_pattern="layers"),
    "PiSSA": lora(init_lora_weights="pissa"),
    "IA3": peft.IA3Config(target_modules=["dense_4h_to_h"], feedforward_modules=["dense_4h_to_h"],
                          task_type="CAUSAL_LM"),
    "AdaLoRA": peft.AdaLoraConfig(target_modules=LAYERS, total_step=20, lora_alpha=256,
                                   task_type="CAUSAL_LM"),
    "OFT": peft.OFTConfig(target_modules=LAYERS, oft_block_size=8, task_type="CAUSAL_LM"),
}


def trained(kind, folder: Path, base: Path = MICRO, **saving) -> torch.Tensor:
    "Save an adapter that has learned for two steps; returns its logits on its own base."
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.get_peft_model(model, kind).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder, **({"save_embedding_layers": False} | saving))
    return logits(model.eval())


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(TOKENS).logits.float()


def plain_model(folder: Path):
    "What transformers alone reads, and that it found every weight."
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                         output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def rms(x: torch.Tensor) -> float:
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize("kind", KINDS)
def test_merged_is_what_base_and_adapter_are(kind, tmp_path):
    live = trained(KINDS[kind], tmp_path / "adapter")
    start = logits(AutoModelForCausalLM.from_pretrained(MICRO, dtype=torch.float32).eval())
    assert rms(live - start) > .1  # or nothing could be dropped
    merge(MergeOptions(adapter=str(tmp_path / "adapter"), output=str(tmp_path / "merged"),
                       dtype="float32"))
    found = logits(plain_model(tmp_path / "merged"))
    assert (found - live).abs().max() < 1e-4, "float32 alone differs by 2e-5"
    assert not list(tmp_path.glob(".merging*"))


def test_the_dtype_is_that_of_the_base_and_rounded_once(tmp_path):
    trained(KINDS["plain"], tmp_path / "adapter")
    merge(MergeOptions(adapter=str(tmp_path / "adapter"), output=str(tmp_path / "merged")))
    assert AutoConfig.from_pretrained(tmp_path / "merged").dtype is torch.float16
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.float16}
    base, update = load_file(MICRO / "model.safetensors"), load_file(
        tmp_path / "adapter" / "adapter_model.safetensors")
    name = "gpt_neox.layers.0.attention.dense"
    a, b = (update[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    expected = base[name + ".weight"].float() + 2 * (b @ a)
    assert torch.equal(merged[name + ".weight"], expected.half())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_adapter_stored_in_16_bits_is_added_in_float32(tmp_path, dtype):
    trained(KINDS["plain"], tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    update = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    save_file(update, file)
    merge(MergeOptions(adapter=str(file.parent), output=str(tmp_path / "merged"), dtype="float32"))
    name = "gpt_neox.layers.0.attention.dense"
    a, b = (update[f"base_model.model.{name}.lora_{side}.weight"].float() for side in "AB")
    expected = load_file(MICRO / "model.safetensors")[name + ".weight"].float() + 2 * (b @ a)
    found = load_file(tmp_path / "merged" / "model.safetensors")[name + ".weight"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("backend", ["bitsandbytes", "reference"])
def test_a_base_in_4_bits_is_dequantized(tmp_path, backend):
    trained(KINDS["plain"], tmp_path / "adapter")
    options = dict(adapter=str(tmp_path / "adapter"), quantization="nf4")
    live = load_adapted(GenerateOptions(**options), CPU)[0]
    merge(MergeOptions(**options, output=str(tmp_path / "merged"), dtype="float32",
                       backend=backend))
    found = logits(plain_model(tmp_path / "merged"))
    assert (found - logits(live)).abs().max() < 1e-4
    unquantized = load_adapted(GenerateOptions(adapter=options["adapter"]), CPU)[0]
    assert rms(found - logits(unquantized)) > .1  # what an assumed base would have cost


def test_a_base_that_was_saved_in_4_bits(tmp_path):
    four = AutoModelForCausalLM.from_pretrained(
        MICRO, dtype=torch.float32, device_map={"": "cpu"},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32))
    four.save_pretrained(tmp_path / "four")
    for file in ("spiece.model", "tokenizer_config.json"):
        shutil.copy(MICRO / file, tmp_path / "four")
    trained(KINDS["DoRA"], tmp_path / "adapter", tmp_path / "four")
    live = logits(load_adapted(GenerateOptions(adapter=str(tmp_path / "adapter")), CPU)[0])
    for backend in ("bitsandbytes", "reference"):
        merge(MergeOptions(adapter=str(tmp_path / "adapter"), output=str(tmp_path / backend),
                           dtype="float32", backend=backend))
        assert "quantization_config" not in (tmp_path / backend / "config.json").read_text()
        assert (logits(plain_model(tmp_path / backend)) - live).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["plain", "tables and head whole", "LoRA on the table",
                                  "some tokens"])
def test_a_head_that_is_the_embedding_table(tmp_path, kind):
    base = tied_micro(tmp_path / "tied")
    live = trained(KINDS[kind], tmp_path / "adapter", base)
    merge(MergeOptions(adapter=str(tmp_path / "adapter"), output=str(tmp_path / "merged"),
                       dtype="float32"))
    merged = plain_model(tmp_path / "merged")
    assert (logits(merged) - live).abs().max() < 1e-4
    assert merged.config.tie_word_embeddings is (kind in ("plain", "some tokens"))


def test_embedding_tables_that_were_saved_beside_the_adapter(tmp_path):
    live = trained(KINDS["plain"], tmp_path / "adapter", save_embedding_layers=True)
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any("embed_in" in name for name in names)
    merge(MergeOptions(adapter=str(tmp_path / "adapter"), output=str(tmp_path / "merged"),
                       dtype="float32"))
    assert (logits(plain_model(tmp_path / "merged")) - live).abs().max() < 1e-4


def renamed(folder: Path, name, **changes) -> None:
    "Give the weights of an adapter other names, and change its configuration."
    file = folder / "adapter_model.safetensors"
    save_file({name(key): part for key, part in load_file(file).items()}, file)
    config = json.loads((folder / "adapter_config.json").read_text())
    kept = {key: value for key, value in (config | changes).items() if value != "gone"}
    (folder / "adapter_config.json").write_text(json.dumps(kept))


LATER = ["rank_pattern", "alpha_pattern", "use_dora", "use_rslora", "loftq_config", "peft_version",
         "layer_replication", "megatron_config", "megatron_core", "trainable_token_indices",
         "eva_config", "corda_config", "lora_bias", "exclude_modules", "layers_pattern",
         "layers_to_transform", "auto_mapping", "revision", "arrow_config", "target_parameters",
         "qalora_group_size", "use_qalora", "ensure_weight_tying", "alora_invocation_tokens"]
OLD = {
    "before 0.4": (lora(), str, dict.fromkeys(LATER, "gone") | {
        "enable_lora": None, "merge_weights": False, "task_type": None, "lora_alpha": 8.0,
        "target_modules": [*LAYERS, "xxx"]}),
    "with the wrapper's name": (
        lora(modules_to_save=["embed_in", "lm_head"]),
        lambda key: key.replace("in.weight", "in.modules_to_save.weight").replace(
            "head.weight", "head.modules_to_save.weight"), {}),
    "before transformers 5": (lora(modules_to_save=["lm_head"]),
                              lambda key: key.replace("lm_head", "embed_out"),
                              {"modules_to_save": ["embed_out"]}),
    "magnitudes as modules": (
        lora(use_dora=True), lambda key: re.sub("(magnitude_vector)$", r"\1.weight", key), {}),
}


@pytest.mark.parametrize("kind", OLD)
def test_what_older_releases_wrote(kind, tmp_path):
    live = trained(OLD[kind][0], tmp_path / "adapter")
    renamed(tmp_path / "adapter", OLD[kind][1], **OLD[kind][2])
    model = load_adapted(GenerateOptions(adapter=str(tmp_path / "adapter")), CPU)[0]
    assert torch.equal(logits(model), live)
    merge(MergeOptions(adapter=str(tmp_path / "adapter"), output=str(tmp_path / "merged"),
                       dtype="float32"))
    assert (logits(plain_model(tmp_path / "merged")) - live).abs().max() < 1e-4


NEW = [2048, 2049, 2050]
GROWN = {
    "whole": lora(modules_to_save=["embed_in", "lm_head"]),
    "table alone whole": lora(modules_to_save=["embed_in"]),
    "rows": lora(trainable_token_indices={"embed_in": NEW, "lm_head": NEW}),
    "neither": lora(),
    "LoRA on the table": lora(target_modules=[*LAYERS, "embed_in"]),
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", GROWN)
def test_a_vocabulary_that_has_grown(kind, tied, tmp_path):
    "As peft writes it: a base with new rows at random, and the tokenizer next to the adapter."
    base = tied_micro(tmp_path / "tied") if tied else MICRO
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.resize_token_embeddings(2051)
    model = peft.get_peft_model(model, GROWN[kind]).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    tokens = torch.tensor([[5, 6, 300, *NEW, *range(301, 330)]])
    for _ in range(2):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(tmp_path / "adapter")
    tokenizer = load_tokenizer(base)
    tokenizer.add_tokens(["<|user|>", "<|model|>", "北斗星"])
    tokenizer.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        live = model.eval()(tokens).logits
        for quantization in ("none", "nf4"):
            loaded, own, *_ = load_adapted(GenerateOptions(
                adapter=str(tmp_path / "adapter"), quantization=quantization), CPU)
            assert own.convert_tokens_to_ids(own.tokenize("<|user|>北斗星")) == [2048, 2050]
            assert torch.equal(loaded(tokens).logits, live) == (quantization == "none")
        merge(MergeOptions(adapter=str(tmp_path / "adapter"), output=str(tmp_path / "merged"),
                           dtype="float32"))
        assert (plain_model(tmp_path / "merged")(tokens).logits - live).abs().max() < 1e-4
    again = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert again("<|user|>空は？北斗星")["input_ids"] == own("<|user|>空は？北斗星")["input_ids"]


def test_what_is_trained_whole_is_switched_off_too(tmp_path):
    start = logits(AutoModelForCausalLM.from_pretrained(MICRO, dtype=torch.float32).eval())
    for kind in ("tables and head whole", "some tokens"):
        live = trained(KINDS[kind], tmp_path / kind)
        model = load_adapted(GenerateOptions(adapter=str(tmp_path / kind)), CPU)[0]
        with without_adapter(model):
            assert torch.equal(logits(model), start)
        assert torch.equal(logits(model), live)


def test_an_old_torchao_disturbs_nobody(tmp_path):
    package = tmp_path / "old" / "torchao"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "0.10.0"\n')
    info = tmp_path / "old" / "torchao-0.10.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchao\nVersion: 0.10.0\n")
    trained(KINDS["plain"], tmp_path / "adapter")
    code = f"""
import peft, torch
from transformers import AutoModelForCausalLM
from qlora_nb.adapters import merge
from qlora_nb.prepare import add_lora
from qlora_nb.micro import micro_folder
from qlora_nb.options import MergeOptions
model = AutoModelForCausalLM.from_pretrained(micro_folder() / "model")
try:
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["dense"]))
except ImportError as error:
    print("peft:", error)
add_lora(AutoModelForCausalLM.from_pretrained(micro_folder() / "model"), 4, 8)
merge(MergeOptions(adapter={str(tmp_path / "adapter")!r}, output={str(tmp_path / "merged")!r}))
import torchao
print("torchao", torchao.__version__)
"""
    path = os.pathsep.join([str(tmp_path / "old"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": path}, timeout=600)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("peft: Found an incompatible version of torchao"), said
    assert said[-1] == "torchao 0.10.0" and (tmp_path / "merged" / "model.safetensors").is_file()


def test_an_adapter_that_its_own_configuration_does_not_describe(tmp_path):
    "The sum of a merge is compared with the adapter itself, whatever peft says that it can merge."
    trained(lora(init_lora_weights="pissa_niter_4"), tmp_path / "adapter")
    with pytest.raises(InputError, match="pissa_niter_4"):
        load_adapted(GenerateOptions(adapter=str(tmp_path / "adapter")), CPU)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4
