"""Does a 4-bit base learn as well as a 16-bit one? On the micro model, over several seeds.

    python benchmarks/compare_methods.py [--seeds 5] [--methods NAME ...]

Every method trains on the same rows for the same steps and answers the same held-out questions.
Writes benchmarks/results/compare_methods.json after every run; a run that stands there already,
made with the same package versions, is not made again. Two processes with --methods of their own
and one thread each (OMP_NUM_THREADS=1) finish sooner than one process with two threads.
"""
import argparse
import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from common import stored_runs
from qlora_nb.core import machine, versions, write_json
from qlora_nb.finetune import evaluate, set_up, train
from qlora_nb.options import FinetuneOptions, resolve

RESULTS = Path(__file__).parent / "results" / "compare_methods.json"
OPTIONS = FinetuneOptions(eval_steps=0, save_steps=100_000)
METHODS = {  # what differs from `OPTIONS`
    "full fine-tuning": dict(quantization="none", learning_rate=5e-4),
    "LoRA, float32": dict(quantization="none"),
    "QLoRA, NF4 + double quantization": dict(quantization="nf4"),
    "QLoRA, FP4": dict(quantization="fp4", double_quantization=False),
}


def run(method: str, seed: int) -> dict:
    "Train once and ask every held-out question."
    options = resolve(replace(OPTIONS, seed=seed, **METHODS[method]))
    torch.manual_seed(seed)
    setup = set_up(options, full=method == "full fine-tuning")
    with tempfile.TemporaryDirectory() as folder:
        trainer = train(setup, options, folder)
    result = {"method": method, "seed": seed}
    for name, exam in setup.data.exams.items():
        found = evaluate(setup.model, setup.tokenizer, exam, options.max_new_tokens, 128)
        result[name] = {"exact_match": found["exact_match"], "loss": found["loss"]}
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return result | {"train_loss": losses[-1], "steps": trainer.state.global_step}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    wanted = parser.parse_args()
    logging.disable(logging.WARNING)
    for seed in range(wanted.seeds):  # seeds outside: an interrupted benchmark is balanced
        for method in wanted.methods:
            if (method, seed) in {(r["method"], r["seed"]) for r in stored_runs(RESULTS)}:
                continue
            new = run(method, seed)
            print(json.dumps(new, ensure_ascii=False), flush=True)
            # Read again: another process may have measured other methods meanwhile.
            runs = sorted([*stored_runs(RESULTS), new],
                          key=lambda r: (list(METHODS).index(r["method"]), r["seed"]))
            write_json(RESULTS, {"machine": machine(), "versions": versions(), "runs": runs})


if __name__ == "__main__":
    main()
