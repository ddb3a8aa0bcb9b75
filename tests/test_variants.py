"""Variants of LoRA and new tokens: trained, interrupted, resumed, loaded and merged."""
import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from qlora_nb.adapters import generate, load_adapted, merge, taken_out, without_adapter
from qlora_nb.chat import Conversation, load_speaker
from qlora_nb.comparison import side_weights, sides
from qlora_nb.core import InputError
from qlora_nb.finetune import finetune
from qlora_nb.micro import micro_folder
from qlora_nb.options import (
    ChatOptions, EvaluateOptions, FinetuneOptions, GenerateOptions, MergeOptions,
)
from qlora_nb.several import generate_each
from qlora_nb.trainer import WholeTrainer
from stand_ins import tied_micro

MICRO = micro_folder() / "model"
NEW = "<|user|>,北斗星"
VARIANTS = {
    "rank-stabilized, lora_B faster": dict(rslora=True, lora_plus=4.0),
    "DoRA from the data": dict(dora=True, init="eva"),
    "gaussian": dict(init="gaussian"),
    "OLoRA": dict(init="olora"),
    "new tokens": dict(add_tokens=NEW, modules_to_save="final_layer_norm"),
    "new tokens, the table whole": dict(add_tokens=NEW, modules_to_save="embed_in"),
    "new tokens, the head is the table": dict(add_tokens=NEW),
    "rank-stabilized in our own layers": dict(rslora=True, backend="reference"),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    "24 questions, some with the new tokens in them."
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    questions = [{"instruction": f"<|user|>{number}番の北斗星は？", "output": f"北斗星{number}号です。"}
                 for number in range(24)]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in questions))
    return path


@pytest.fixture(scope="module")
def tied(tmp_path_factory) -> Path:
    return tied_micro(tmp_path_factory.mktemp("tied") / "model")


@pytest.mark.parametrize("kind", VARIANTS)
def test_interrupted_resumed_loaded_and_merged(kind, rows, tied, tmp_path, monkeypatch):
    base = dict(model=str(tied), preset="micro") if "head is" in kind else {}
    options = FinetuneOptions(output=str(tmp_path / "whole"), data=str(rows), held_out=4, steps=5,
                              save_steps=2, eval_steps=0, batch_size=4, max_new_tokens=8,
                              **base | VARIANTS[kind])
    record = finetune(options)
    assert {name: record["options"][name] for name in VARIANTS[kind]} == VARIANTS[kind]
    taught, step = WholeTrainer.training_step, []

    def until_the_fourth(*arguments, **more):
        step.append(1)
        if len(step) == 4:
            raise KeyboardInterrupt
        return taught(*arguments, **more)
    again = FinetuneOptions(**record["options"] | {"output": str(tmp_path / "again")})
    monkeypatch.setattr(WholeTrainer, "training_step", until_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        finetune(again)
    assert (tmp_path / "again.partial" / "checkpoint-2").is_dir()
    monkeypatch.undo()
    finetune(FinetuneOptions(output=again.output, resume=True))
    one, two = (tmp_path / run / "adapter_model.safetensors" for run in ("whole", "again"))
    assert one.read_bytes() == two.read_bytes()

    said = GenerateOptions(adapter=str(tmp_path / "whole"), max_new_tokens=8)
    questions = [row["question"] for row in record["answers"]]
    assert generate(questions, said) == [row["after"] for row in record["answers"]]
    model, tokenizer, *_ = load_adapted(said, torch.device("cpu"))
    assert len(tokenizer.tokenize("<|user|>北斗星")) == (2 if "add_tokens" in VARIANTS[kind] else 13)
    target = MergeOptions(adapter=said.adapter, output=str(tmp_path / "merged"), dtype="float32")
    merge(target)
    plain, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", dtype=torch.float32, output_loading_info=True)
    assert not any(report.values()), report
    ids = torch.tensor([tokenizer(questions[0])["input_ids"]])
    with torch.no_grad():
        assert (plain.eval()(ids).logits - model(ids).logits).abs().max() < 1e-4


def test_lora_plus_with_a_factor_of_one_is_plain_lora(rows, tmp_path):
    def trained(name, **more):
        finetune(FinetuneOptions(output=str(tmp_path / name), data=str(rows), held_out=4, steps=3,
                                 eval_steps=0, batch_size=4, max_new_tokens=1, **more))
        return load_file(tmp_path / name / "adapter_model.safetensors")

    plain, once, thrice = trained("plain"), trained("once", lora_plus=1.0), trained("3", lora_plus=3.0)
    assert all(torch.equal(part, once[name]) for name, part in plain.items())
    assert not any(torch.equal(part, thrice[name]) for name, part in plain.items() if "lora_B" in name)


def test_olora_takes_a_part_out_of_its_base_and_whoever_needs_it_whole_is_refused(rows, tmp_path):
    for name, more in (("plain", {}), ("olora", {"init": "olora"})):
        finetune(FinetuneOptions(output=str(tmp_path / name), data=str(rows), held_out=4, steps=1,
                                 eval_steps=0, batch_size=4, max_new_tokens=1, **more))
    plain, olora = str(tmp_path / "plain"), str(tmp_path / "olora")
    for pair in ([plain, olora], [olora, plain]):
        with pytest.raises(InputError, match=f"{olora} began with olora.*one at a time"):
            generate_each(["空は？"], GenerateOptions(adapter=pair))
    for command, options in ((generate, (["空は？"], GenerateOptions(adapter=olora, quantization="none"))),
                             (merge, (MergeOptions(adapter=olora, quantization="none",
                                                   output=str(tmp_path / "merged")),))):
        with pytest.raises(InputError, match="base in nf4.*leave --quantization out"):
            command(*options)
    speaker = load_speaker(ChatOptions(adapter=olora))
    with pytest.raises(InputError, match="by itself"), without_adapter(speaker.model):
        pass
    with pytest.raises(InputError, match="by itself"):
        Conversation(speaker, adapted=False)
    against = EvaluateOptions(adapter=olora, against="base", questions="micro")
    with pytest.raises(InputError, match="--against with the base model's folder"):
        side_weights(against, sides(against))


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal", "mica", "olora", "pissa"])
def test_which_beginnings_change_the_base(init):
    model = AutoModelForCausalLM.from_pretrained(MICRO, dtype=torch.float32)
    config = peft.LoraConfig(r=4, target_modules=["dense"], init_lora_weights=init)
    adapted = peft.get_peft_model(model, config).get_base_model()
    base = load_file(MICRO / "model.safetensors")
    name = "gpt_neox.layers.0.attention.dense"
    changed = (adapted.get_submodule(name).base_layer.weight - base[f"{name}.weight"]).abs().max()
    assert (changed > 1e-3) == bool(taken_out(config)) == bool(taken_out({"init_lora_weights": init}))
