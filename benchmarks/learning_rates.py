"""Which learning rate for which rank? LoRA at several ranks and full fine-tuning on the micro model.

    python benchmarks/learning_rates.py [--seeds 2]

LoRA Without Regret (Schulman and others, Thinking Machines 2025) finds that LoRA's best rate is
about ten times that of full fine-tuning, and hardly depends on the rank when alpha is fixed. Every
method trains for the same few steps on the same rows at each rate, and is judged by the loss on a
third of the held-out questions. LoRA comes twice: with alpha fixed, and with alpha twice the rank.
Writes benchmarks/results/learning_rates.json after every run; runs that stand there are not made
again.
"""
import json
import math
import time
from pathlib import Path

import torch

from common import on_one_thread, seeds_parser
from peft_families import BATCH, MATRICES, InPlace, Task, fit
from qlora_nb.core import machine, versions, write_json
from qlora_nb.lora import LoRALinear
from qlora_nb.micro import micro_folder
from qlora_nb.models import load_base
from qlora_nb.peft_families import wrap_layers

RESULTS = Path(__file__).parent / "results" / "learning_rates.json"
RANKS, ALPHA, STEPS = [1, 8, 64], 32, 30
FULL = [3.125e-5 * 2**power for power in range(7)]  # to 0.002
LORA = [5e-4 * 2**power for power in range(7)]  # to 0.032


def plans() -> list[dict]:
    "Every method: full fine-tuning, and each rank with its two alphas."
    return [{"rank": None, "alpha": None}] + [
        {"rank": rank, "alpha": alpha} for alpha_of in (lambda r: ALPHA, lambda r: 2 * r)
        for rank in RANKS for alpha in [alpha_of(rank)]]


def build(rank: int | None, alpha: float | None, seed: int) -> InPlace:
    "A fresh micro model in float32: all of it trains, or LoRA on every matrix of its layers."
    torch.manual_seed(seed)
    model = load_base(micro_folder() / "model", "none")
    if rank is not None:
        wrap_layers(model, dict.fromkeys(MATRICES, lambda layer: LoRALinear(layer, rank, alpha)))
    return InPlace(model)


def main():
    wanted = seeds_parser(__doc__.splitlines()[0], 2).parse_args()
    on_one_thread()
    task, about = Task(), {"machine": machine(), "versions": versions()}
    old = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    found = old if old.get("versions") == about["versions"] else about
    found["plan"] = {"steps": STEPS, "batch": BATCH, "questions": len(task.choose), "alpha": ALPHA}
    runs = found.setdefault("runs", [])
    known = {(run["rank"], run["alpha"], run["rate"], run["seed"]) for run in runs}
    started = time.process_time()
    for seed in range(wanted.seeds):
        for plan in plans():
            for rate in FULL if plan["rank"] is None else LORA:
                if (plan["rank"], plan["alpha"], rate, seed) in known:
                    continue
                known.add((plan["rank"], plan["alpha"], rate, seed))
                method = build(**plan, seed=seed)
                fit(method, task.train, rate, STEPS, seed)
                loss = task.held_out_loss(method, task.choose)
                runs.append({**plan, "rate": rate, "seed": seed,
                             "loss": loss if math.isfinite(loss) else None})
                write_json(RESULTS, found)
    print(f"{len(runs)} runs, {time.process_time() - started:.0f} seconds of one core")


if __name__ == "__main__":
    main()
