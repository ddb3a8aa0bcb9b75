"""How much of a real update fits into rank r? On the micro model, over several seeds.

    python benchmarks/update_rank.py [--seeds 3]

The matrices of the layers, the places where LoRA goes, are trained in full and everything else is
frozen. Their update is then cut to rank r, added to the base model and asked the held-out
questions; beside it stands LoRA that was trained with that rank, at the same scaling of 2.
Writes benchmarks/results/update_rank.json after every run; a run that stands there already, made
with the same package versions, is not made again.
"""
import argparse
import json
import logging
import tempfile
from pathlib import Path

import torch

from qlora_nb.core import machine, versions, write_json
from qlora_nb.exam import evaluate
from qlora_nb.finetune import set_up, train
from qlora_nb.lora import best_rank, reach
from qlora_nb.options import FinetuneOptions
from qlora_nb.plan import Plan, make_plan

RESULTS = Path(__file__).parent / "results" / "update_rank.json"
CUT = [0, 1, 2, 4, 8, 16, 32, 64, 128, 192]
TRAINED = [1, 2, 4, 8, 16, 32, 64]


def plan(seed: int, rank: int = 8, **changed) -> Plan:
    "The plan of the chapter on fine-tuning, without quantization."
    return make_plan(FinetuneOptions(quantization="none", eval_steps=0, save_steps=100_000,
                                   seed=seed, rank=rank, alpha=2.0 * rank, **changed))


def matrices(model) -> dict:
    "The weights of the linear layers, by name, without the output head."
    head = model.get_output_embeddings()
    return {name: layer.weight for name, layer in model.named_modules()
            if isinstance(layer, torch.nn.Linear) and layer is not head}


def exam(setup, chosen) -> dict:
    "Exact match and loss on the held-out questions."
    found = evaluate(setup.model, setup.tokenizer, setup.data.exams["held-out"],
                     chosen.max_new_tokens, 128)
    return {"exact_match": found["exact_match"], "loss": found["loss"]}


@torch.no_grad()
def cut(setup, chosen, base: dict, deltas: dict) -> list[dict]:
    "The exam of the base model plus the update, cut to each rank of `CUT`."
    weights, rows = matrices(setup.model), []
    whole = sum(delta.square().sum() for delta in deltas.values())
    for rank in CUT:
        kept = 0.0
        for name, delta in deltas.items():
            near = best_rank(delta, rank)
            kept += near.square().sum()
            weights[name].copy_(base[name] + near)
        rows.append({"rank": rank, "share": float(kept / whole)} | exam(setup, chosen))
    return rows


def in_full(seed: int) -> dict:
    "Train every matrix in full, then cut the update."
    chosen = plan(seed, learning_rate=5e-4)
    torch.manual_seed(seed)
    setup = set_up(chosen, full=True)
    weights = matrices(setup.model)
    base = {name: weight.detach().clone() for name, weight in weights.items()}
    setup.model.requires_grad_(False)
    for weight in weights.values():
        weight.requires_grad_(True)
    with tempfile.TemporaryDirectory() as folder:
        train(setup, folder)
    deltas = {name: (weight - base[name]).detach() for name, weight in weights.items()}
    result = {"seed": seed, "uncut": exam(setup, chosen), "cut": cut(setup, chosen, base, deltas)}
    if seed == 0:
        result["singular_values"] = {name: _short(torch.linalg.svdvals(delta))
                                     for name, delta in deltas.items()}
    return result | {"reach": _short(sum(map(reach, deltas.values())) / len(deltas))}


def _short(values: torch.Tensor) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]


def with_lora(seed: int, rank: int) -> dict:
    "Train LoRA of one rank."
    chosen = plan(seed, rank)
    setup = set_up(chosen)
    with tempfile.TemporaryDirectory() as folder:
        train(setup, folder)
    return {"seed": seed, "rank": rank} | exam(setup, chosen)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    wanted = parser.parse_args()
    logging.disable(logging.WARNING)
    old = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    found = old if old.get("versions") == versions() else {}
    found = {"machine": machine(), "versions": versions(), "full": found.get("full", []),
             "lora": found.get("lora", [])}
    for seed in range(wanted.seeds):
        if seed not in {run["seed"] for run in found["full"]}:
            found["full"].append(in_full(seed))
            write_json(RESULTS, found)
    for seed in range(wanted.seeds):  # seeds outside: an interrupted benchmark is balanced
        for rank in TRAINED:
            if (seed, rank) not in {(run["seed"], run["rank"]) for run in found["lora"]}:
                found["lora"].append(with_lora(seed, rank))
                write_json(RESULTS, found)


if __name__ == "__main__":
    main()
