"""Does LoRA put new directions among the largest of a matrix? Full fine-tuning beside several ranks.

    python benchmarks/intruders.py [--seeds 2]

LoRA vs Full Fine-tuning (Shuttleworth and others 2024, arXiv 2410.21228) calls a singular vector of
the tuned matrix an intruder dimension if it is among the `TOP` largest and its cosine with every
singular vector of the matrix before is below a threshold. Every contestant trains the micro model on
the same rows with the rate that benchmarks/learning_rates.py found for it, and is asked the held-out
questions. Writes benchmarks/results/intruders.json after every run; runs that stand there are not
made again.
"""
import time
from pathlib import Path

import torch

from common import on_one_thread, seeds_parser, stored_runs
from learning_rates import ALPHA, build
from peft_families import MATRICES, STEPS, Task, fit
from qlora_nb.core import machine, versions, write_json
from qlora_nb.lora import LoRALinear
from qlora_nb.micro import micro_folder
from qlora_nb.models import load_base

RESULTS = Path(__file__).parent / "results" / "intruders.json"
TOP = 10
RATES = {None: 5e-4, 1: 4e-3, 8: 4e-3, 64: 4e-3}  # rank, None: full fine-tuning


def matrices(model) -> dict[str, torch.Tensor]:
    "The matrices of the layers by name, LoRA's updates added in."
    found = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LoRALinear):
            found[name] = layer.base_layer.weight + layer.delta_weight()
        elif isinstance(layer, torch.nn.Linear) and name.endswith(tuple(MATRICES)):
            found[name] = layer.weight
    return {name: weight.detach() for name, weight in found.items()}


def nearest(before: torch.Tensor, after: torch.Tensor) -> list[float]:
    "Of the largest left singular vectors of `after`, each one's largest cosine with those of `before`."
    old, new = (torch.linalg.svd(matrix.double(), full_matrices=False).U for matrix in (before, after))
    return [round(cosine, 4) for cosine in (old.T @ new[:, :TOP]).abs().amax(0).tolist()]


def run(task: Task, rank: int | None, seed: int) -> dict:
    "Train one contestant, ask it, and compare its matrices with those before."
    method = build(rank, ALPHA, seed)
    started = time.process_time()
    fit(method, task.train, RATES[rank], STEPS, seed)
    before = matrices(load_base(micro_folder() / "model", "none"))
    after = matrices(method.model)
    return {"rank": rank, "seed": seed, "rate": RATES[rank],
            "loss": round(task.held_out_loss(method, task.report), 5),
            "moved": round(float(sum((after[name] - before[name]).square().sum() for name in before)
                                 / sum(w.square().sum() for w in before.values())) ** .5, 4),
            "cosines": {name: nearest(before[name], after[name]) for name in before},
            "seconds": round(time.process_time() - started, 1)}


def main():
    wanted = seeds_parser(__doc__.splitlines()[0], 2).parse_args()
    on_one_thread()
    task, runs = Task(), stored_runs(RESULTS)
    head = {"machine": machine(), "versions": versions(), "steps": STEPS, "alpha": ALPHA, "top": TOP}
    for seed in range(wanted.seeds):
        for rank in RATES:
            if (rank, seed) not in {(one["rank"], one["seed"]) for one in runs}:
                runs.append(run(task, rank, seed))
                print(rank, seed, runs[-1]["loss"], f"{runs[-1]['seconds']:.0f} s", flush=True)
                write_json(RESULTS, head | {"runs": runs})


if __name__ == "__main__":
    main()
