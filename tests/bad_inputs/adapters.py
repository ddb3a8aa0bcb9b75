"""Adapters that are damaged, fit nothing, or hold what cannot be merged."""
import json
import shutil
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bad_inputs import Bad
from qlora_nb.loading import fingerprint
from qlora_nb.micro import micro_folder

LAYER = "base_model.model.gpt_neox.layers.0.attention.dense"
A, B = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "micro", "r": 4,
          "lora_alpha": 8, "target_modules": ["gpt_neox.layers.0.attention.dense"]}


def adapter(folder: Path, weights: dict | None = None, **changes) -> Path:
    "A LoRA adapter of one layer of the micro model; `changes` are made in its configuration."
    plain = {A: torch.ones(4, 192), B: torch.ones(192, 4)}
    (folder / "odd").mkdir()
    save_file(plain if weights is None else weights, folder / "odd" / "adapter_model.safetensors")
    (folder / "odd" / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
    return folder / "odd"


def spoiled(how, folder: Path) -> None:
    "A good adapter, and what `how` does to its folder."
    how(adapter(folder))


def refused(title, words, make, *options, command="merge") -> Bad:
    "A command on the adapter `odd`."
    return Bad(title, [command, "--adapter", "odd", *options], words, make)


def with_config(title, words, *options, **changes) -> Bad:
    return refused(title, words, partial(adapter, **changes), *options)


def with_weights(title, words, weights, *options, **changes) -> Bad:
    return refused(title, words, partial(adapter, weights=weights, **changes), *options)


def cut(path: Path) -> None:
    file = path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickled(path: Path) -> None:
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")


def of_other_base(path: Path) -> None:
    base = {"model": "other", "fingerprint": "0" * 16}
    (path / "run.json").write_text(json.dumps({"options": {"model": "micro"}, "base": base}))


TABLES = {A: torch.ones(4, 192), B: torch.ones(192, 4),
          "base_model.model.gpt_neox.embed_in.weight": torch.ones(2050, 192),
          "base_model.model.lm_head.weight": torch.ones(2051, 192)}


def saved_by_name(path: Path) -> None:
    "What peft's save_pretrained makes of an adapter that is not called default."
    (path / "policy").mkdir()
    for file in path.glob("adapter_*"):
        file.rename(path / "policy" / file.name)


def two(folder: Path, other: dict, weights: dict | None = None, files=()) -> None:
    "The adapters `odd` and `even`, which differs in its configuration and weights."
    adapter(folder)
    (folder / "odd").rename(folder / "first")
    adapter(folder, weights, **other)
    (folder / "odd").rename(folder / "even")
    (folder / "first").rename(folder / "odd")
    for name, content in files:
        (folder / "even" / name).write_text(json.dumps(content))


def both(title, words, make, *options, second="even") -> Bad:
    "A question to two adapters at once."
    return Bad(title, ["generate", "--adapter", "odd", "--adapter", second, *options, "a"], words, make)


def other_base(folder: Path) -> None:
    "The second adapter belongs to a model with other weights."
    micro = micro_folder() / "model"
    shutil.copytree(micro, folder / "other")
    model = load_file(folder / "other" / "model.safetensors")
    name = "gpt_neox.final_layer_norm.bias"
    save_file(model | {name: model[name] + 1}, folder / "other" / "model.safetensors", {"format": "pt"})
    two(folder, {"base_model_name_or_path": "./other"})


STORED = {"options": {"quantization": "nf4"}, "base": {"model": "micro", "fingerprint":
                                                       fingerprint(micro_folder() / "model")}}
LONGER = {A: torch.ones(4, 192), B: torch.ones(192, 4),
          "base_model.model.gpt_neox.embed_in.weight": torch.ones(2050, 192),
          "base_model.model.lm_head.weight": torch.ones(2050, 192)}
GROWN = {A: torch.ones(4, 192), B: torch.ones(192, 4),
         "base_model.model.gpt_neox.embed_in.weight": torch.ones(9, 192)}
ROWS = [
    Bad("an adapter that is not there", ["generate", "--adapter", "./nowhere", "a"], ["nowhere"]),
    Bad("no fine-tune before the first question", ["generate", "a"],
        ["runs/micro", "qlora-nb finetune"]),
    refused("a folder with weights and no adapter_config.json", ["odd", "adapter_config.json"],
            partial(spoiled, lambda path: (path / "adapter_config.json").unlink())),
    refused("an adapter_config.json that is a list", ["odd", "damaged", "adapter_config.json"],
            partial(spoiled, lambda path: (path / "adapter_config.json").write_text("[]"))),
    refused("an adapter whose weights break off", ["odd", "damaged"], partial(spoiled, cut)),
    refused("an adapter's weights only as pickle", ["odd", "pickle"], partial(spoiled, pickled)),
    refused("an adapter of another base model's run", ["'other'", "micro"],
            partial(spoiled, of_other_base), "--model", "micro"),
    with_weights("an adapter with NaN", ["NaN"], {A: torch.full((4, 192), torch.nan)}),
    with_weights("an adapter without weights", ["odd", "no weights"], {}),
    with_weights("an adapter of another width", ["odd", "does not fit"],
                 {A: torch.ones(4, 64), B: torch.ones(64, 4)}),
    with_weights("an adapter with half of its weights", ["odd", "does not fit", "lora_B"],
                 {A: torch.ones(4, 192)}),
    with_weights("an adapter with an embedding of more tokens", ["odd", "does not fit"], GROWN),
    with_weights("an adapter whose tables have unlike lengths", ["odd", "2,050", "2,051"], TABLES),
    refused("an adapter that was saved by a name", ["odd", "give odd/policy"],
            partial(spoiled, saved_by_name)),
    with_config("a rank for a layer that the base lacks", ["rank_pattern", "'q_proj'"],
                rank_pattern={"q_proj": 8}),
    with_config("an alpha for a layer that the base lacks", ["alpha_pattern", "'q_proj'"],
                alpha_pattern={"q_proj": 8}),
    with_config("an adapter that needs a later peft", ["sets use_mirrors", "update peft"],
                use_mirrors=True),
    with_config("an adapter without the name of its base", ["--model"],
                base_model_name_or_path=None),
    with_config("an adapter whose base model is gone", ["./gone"],
                base_model_name_or_path="./gone"),
    with_config("an adapter for layers that the model lacks", ["odd", "q_proj"],
                target_modules=["q_proj"]),
    with_config("an adapter of a kind that peft does not know", ["LORA2"], peft_type="LORA2"),
    with_config("prompt tuning that shall be merged", ["PROMPT_TUNING", "tokens"],
                peft_type="PROMPT_TUNING", num_virtual_tokens=4),
    with_config("activated LoRA that shall be merged", ["odd", "aLoRA"],
                alora_invocation_tokens=[5, 6]),
    with_config("an adapter that began with a random part of its base", ["pissa_niter_4"],
                init_lora_weights="pissa_niter_4"),
    with_config("PiSSA that shall be merged into a quantized base",
                ["pissa", "--quantization none"], "--quantization", "nf4",
                init_lora_weights="pissa"),
    with_config("DoRA that shall be merged into our own 4-bit layers", ["odd", "does not fit"],
                "--quantization", "nf4", "--backend", "reference", use_dora=True),
    both("the same adapter twice", ["odd is given twice"], adapter, second="./odd"),
    both("no adapter and one", ["--adapter none excludes"], adapter, second="none"),
    both("two adapters of different bases", ["odd", "even", "different base models"], other_base),
    both("two adapters trained in 16 and in 4 bits", ["odd", "even", "in none", "in nf4"],
         partial(two, other={}, files=[("run.json", STORED)])),
    both("two adapters with different vocabularies", ["odd", "even", "2,048", "2,050"],
         partial(two, other={}, weights=LONGER)),
    both("two adapters on this library's own layers", ["--backend reference", "one"],
         partial(two, other={}), "--backend", "reference"),
    both("two adapters of different kinds", ["even", "does not fit"],
         partial(two, other={"peft_type": "IA3", "feedforward_modules": []},
                 weights={f"{LAYER}.ia3_l": torch.ones(192, 1)})),
    refused("DoRA on this library's own layers", ["odd", "use_dora"],
            partial(adapter, use_dora=True), "--backend", "reference", "a", command="generate"),
]
