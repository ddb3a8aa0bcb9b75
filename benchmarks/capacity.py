"""How many bits does an adapter hold? LoRA on the micro model learns random labels by heart.

    python benchmarks/capacity.py

Every row is two random tokens, and its label is one of two tokens, drawn by a coin. Nothing can be
learned about such labels but the labels themselves, so the bits that the loss falls below one are
bits that the adapter stores (Morris and others 2025, arXiv 2505.24832, count so, too). The adapter
goes on the two matrices of the last layer's MLP, and only the logits of the two labels compete. What
comes before that layer is the same at every step and is computed once. Each adapter is offered some
labels for each of its parameters, and reads all of them at every step.
Writes benchmarks/results/capacity.json after every run; runs that stand there are not made again.
"""
import math
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from common import on_one_thread, stored_runs
from qlora_nb.core import machine, versions, write_json
from qlora_nb.lora import LoRALinear
from qlora_nb.micro import micro_folder
from qlora_nb.models import load_base

RESULTS = Path(__file__).parent / "results" / "capacity.json"
ALPHABET, FIRST = 1024, 8  # tokens FIRST, FIRST + 1, ...; those before are special
STEPS, RATE, ALPHA = 2000, 1e-2, 32
PLANS = [{"rank": rank, "offered": offered} for rank, offered in [(1, 1), (1, 2), (1, 3)]]


def before_last_mlp(model, ids: torch.Tensor) -> torch.Tensor:
    "What stands in the residual stream in front of the last layer's MLP, at each row's last token."
    found: list = []
    norm = model.base_model.layers[-1].post_attention_layernorm
    hook = norm.register_forward_pre_hook(lambda module, given: found.append(given[0][:, -1].clone()))
    with torch.no_grad():
        model(ids, use_cache=False)
    hook.remove()
    return found[0]


def run(rank: int, offered: float) -> dict:
    "Train one adapter on `offered` random labels for each of its parameters."
    torch.manual_seed(0)
    model = load_base(micro_folder() / "model", "none").requires_grad_(False)
    layer = model.base_model.layers[-1]
    mlp = layer.mlp
    mlp.dense_h_to_4h = LoRALinear(mlp.dense_h_to_4h, rank, ALPHA)
    mlp.dense_4h_to_h = LoRALinear(mlp.dense_4h_to_h, rank, ALPHA)
    trained = [p for p in mlp.parameters() if p.requires_grad]
    parameters = sum(p.numel() for p in trained)
    rows = round(offered * parameters)
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randperm(ALPHABET**2, generator=generator)[:rows]  # no two rows are alike
    stream = before_last_mlp(model, torch.stack([pairs // ALPHABET, pairs % ALPHABET], 1) + FIRST)
    normed = layer.post_attention_layernorm(stream)
    labels = torch.randint(2, (rows,), generator=generator)
    head = model.get_output_embeddings().weight[FIRST:FIRST + 2].T
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    shape = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(
        (step + 1) / 20, (1 + math.cos(math.pi * step / STEPS)) / 2))
    started, curve = time.process_time(), []
    for step in range(STEPS + 1):
        logits = model.base_model.final_layer_norm(stream + mlp(normed)) @ head
        loss = cross_entropy(logits, labels)
        bits = 1 - loss.item() / math.log(2)  # below 0 where it is worse than a coin
        if step % (STEPS // 10) == 0:
            curve.append(round(bits * rows / parameters, 4))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        shape.step()
        optimizer.zero_grad()
    return {"rank": rank, "offered": offered, "parameters": parameters, "labels": rows,
            "right": round(float((logits.argmax(1) == labels).float().mean()), 4),
            "held_per_parameter": curve[-1], "curve": curve,
            "seconds": round(time.process_time() - started, 1)}


def main():
    on_one_thread()
    head = {"machine": machine(), "versions": versions(), "steps": STEPS, "rate": RATE, "alpha": ALPHA}
    runs = stored_runs(RESULTS)
    for plan in PLANS:
        if not any(plan.items() <= old.items() for old in runs):
            runs.append(run(**plan))
            print(runs[-1], flush=True)
            write_json(RESULTS, head | {"runs": runs})


if __name__ == "__main__":
    main()
