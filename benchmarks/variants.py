"""What is a variant of LoRA worth, at as many trained weights? Eight of them on the micro model.

    python benchmarks/variants.py [--seeds 3]

Each has the same base in NF4, the same rows in the same order, the same few steps, and two learning
rates; the one with the lower loss on a third of the held-out questions counts, and the loss on
another third is reported. DoRA gives up as much rank as its lengths of rows cost.
Writes benchmarks/results/variants.json after every run; runs that are in it are not made again.
"""
import argparse
import json
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file

from qlora_nb.bnb_layers import give_weight
from qlora_nb.core import machine, versions, write_json
from qlora_nb.data import FORMATS, Collator, encode_all
from qlora_nb.exam import make_exam, mean_loss
from qlora_nb.lean import training_loss
from qlora_nb.micro import micro_folder
from qlora_nb.models import load_base
from qlora_nb.options import FinetuneOptions
from qlora_nb.plan import make_plan
from qlora_nb.prepare import parameter_counts, prepare
from qlora_nb.readers import conversations, read_rows
from qlora_nb.tokenizer import load_tokenizer
from qlora_nb.variants import begin_with_data, loftq, pissa, variant

RESULTS = Path(__file__).parent / "results" / "variants.json"
FOLDER = micro_folder() / "model"
RATES, STEPS, BATCH = [2e-3, 6e-3], 30, 16
RANK, ALPHA = 8, 16.0
# A rank less in two layers of each block pays for the 1,728 lengths of its rows.
LESS = {"rank_pattern": {"query_key_value": 7, "dense_4h_to_h": 7},
        "alpha_pattern": {"query_key_value": 14, "dense_4h_to_h": 14}}
VARIANTS = {
    "LoRA": {}, "rsLoRA": {"rslora": True}, "DoRA": {"dora": True}, "LoRA+": {"lora_plus": 4.0},
    "OLoRA": {"init": "olora"}, "EVA": {"init": "eva"}, "PiSSA": {}, "LoftQ": {},
}


def task() -> SimpleNamespace:
    "Rows to train on, and held-out ones to choose by and to report."
    tokenizer, form = load_tokenizer(FOLDER), FORMATS["rinna"]
    talks, held_out = (conversations(read_rows(micro_folder() / f"{part}.jsonl"))
                       for part in ("train", "held_out"))
    exam = make_exam(held_out, tokenizer, form, 512).examples
    return SimpleNamespace(
        train=encode_all(talks, tokenizer, form, 512), collator=Collator(tokenizer),
        choose=exam[::3], report=exam[1::3])


def build(name: str, seed: int, rows):
    "A fresh model with the variant's adapter on its base in NF4."
    plan = replace(make_plan(FinetuneOptions(device="cpu", seed=seed, **VARIANTS[name])),
                   batch_size=BATCH)
    model = load_base(FOLDER, "nf4")
    fields = variant(plan, model, []) | (LESS if name == "DoRA" else {})
    model = prepare(model, RANK, ALPHA, seed=seed, variant=fields)
    if name == "EVA":
        begin_with_data(model, rows, plan)
    if name in ("PiSSA", "LoftQ"):
        begin_with_error(model, pissa if name == "PiSSA" else loftq)
    return model, plan.lora_plus or 1.0


@torch.no_grad()
def begin_with_error(model, split) -> None:
    "Give each layer the base and the adapter that `split` makes of its float weight."
    weights = load_file(FOLDER / "model.safetensors")
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A"):
            weight = weights[name.removeprefix("base_model.model.") + ".weight"].float()
            base, B, A = split(weight, RANK)
            give_weight(layer.base_layer, base)
            root = math.sqrt(layer.scaling["default"])
            layer.lora_A["default"].weight.copy_(A / root)
            layer.lora_B["default"].weight.copy_(B / root)


def fit(model, rows, rate: float, faster: float, seed: int) -> list[float]:
    "AdamW with a short rise and a cosine fall; returns the loss of each step."
    groups = [{"params": [p for name, p in model.named_parameters() if p.requires_grad
                          and (".lora_B." in name) is second], "lr": rate * (faster if second else 1)}
              for second in (False, True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    shape = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(
        (s + 1) / 4, (1 + math.cos(math.pi * s / STEPS)) / 2))
    generator, losses = torch.Generator().manual_seed(seed), []
    model.train()
    for _ in range(STEPS):
        chosen = torch.randperm(len(rows.train), generator=generator)[:BATCH].tolist()
        loss = training_loss(model, rows.collator([rows.train[i] for i in chosen]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        optimizer.step()
        shape.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def run(name: str, seed: int, rate: float, rows) -> dict:
    "Train one variant and measure it on held-out questions."
    model, faster = build(name, seed, rows)
    before = mean_loss(model, rows.report, rows.collator)
    started = time.process_time()
    losses = fit(model, rows, rate, faster, seed)
    seconds = (time.process_time() - started) / STEPS
    return {"variant": name, "seed": seed, "rate": rate, "steps": STEPS,
            "trained": parameter_counts(model)["trained"], "before": before,
            "train_loss": statistics.mean(losses[-10:]), "seconds_per_step": seconds,
            "choose": mean_loss(model, rows.choose, rows.collator),
            "loss": mean_loss(model, rows.report, rows.collator)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    found = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    done = {(row["variant"], row["seed"], row["rate"]) for row in found}
    rows = task()
    for seed in range(seeds):
        for name in VARIANTS:
            for rate in RATES:
                if (name, seed, rate) not in done:
                    found.append(run(name, seed, rate, rows))
                    print(json.dumps(found[-1]), flush=True)
                    write_json(RESULTS, {"machine": machine(), "versions": versions(),
                                         "rank": RANK, "alpha": ALPHA, "batch": BATCH, "runs": found})


if __name__ == "__main__":
    main()
