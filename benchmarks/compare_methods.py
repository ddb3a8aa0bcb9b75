"""Does a 4-bit base learn as well as a 16-bit one? On the micro model, over several seeds.

    python benchmarks/compare_methods.py [--seeds 8] [--methods NAME ...] [--dtypes NAME ...]

Every method trains on the same rows for the same steps and answers the same held-out questions:
in bfloat16, which is the question, and in 32 bits, which tells what the 16 cost by themselves.
Before that, rates of full fine-tuning are tried, with a seed of their own; `METHODS` has the best.
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
from qlora_nb.exam import evaluate
from qlora_nb.finetune import set_up, train
from qlora_nb.options import FinetuneOptions, resolve
from qlora_nb.plan import make_plan

RESULTS = Path(__file__).parent / "results" / "compare_methods.json"
OPTIONS = FinetuneOptions(eval_steps=0, save_steps=100_000)
METHODS = {  # what differs from `OPTIONS`
    "full fine-tuning": dict(quantization="none", learning_rate=5e-4),
    "LoRA": dict(quantization="none"),
    "QLoRA, NF4 + double quantization": dict(quantization="nf4"),
    "QLoRA, FP4": dict(quantization="fp4", double_quantization=False),
}
RATES = {"full fine-tuning": (2.5e-4, 5e-4, 1e-3, 2e-3)}  # adapters have that of the preset
SEARCH_SEED = 100  # of the trials, and of no other run
DTYPES = ("bfloat16", "float32")  # of the arithmetic and of the base model's unquantized weights


def run(method: str, dtype: str, seed: int, **changes) -> dict:
    "Train once and ask every held-out question."
    chosen = METHODS[method] | changes
    plan = make_plan(replace(OPTIONS, seed=seed, compute_dtype=dtype, **chosen))
    torch.manual_seed(seed)
    setup = set_up(plan, full=method == "full fine-tuning")
    with tempfile.TemporaryDirectory() as folder:
        trainer = train(setup, folder)
    result = {"method": method, "dtype": dtype, "seed": seed, "rate": plan.learning_rate,
              "processor": machine()["processor"]}  # runs of several machines may stand together
    for name, exam in setup.data.exams.items():
        found = evaluate(setup.model, setup.tokenizer, exam, plan.max_new_tokens, 128)
        result[name] = {"exact_match": found["exact_match"], "loss": found["loss"]}
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return result | {"train_loss": losses[-1], "steps": trainer.state.global_step}


def key(run: dict) -> tuple:
    "What a run is known by, in the order of the results: trials first."
    return (run["seed"] != SEARCH_SEED, DTYPES.index(run["dtype"]),
            list(METHODS).index(run["method"]), run["seed"], run["rate"])


def plan(seeds: int, methods: list[str], dtypes: list[str]):
    "Method, dtype, seed and rate of every run; seeds outside: what is interrupted is balanced."
    for method in (m for m in RATES if m in methods):
        yield from ((method, DTYPES[0], SEARCH_SEED, rate) for rate in RATES[method])
    for seed in range(seeds):
        for dtype, method in [(d, m) for d in dtypes for m in methods]:
            yield method, dtype, seed, resolve(replace(OPTIONS, **METHODS[method])).learning_rate


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8, help="how many, from 0 on")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    wanted = parser.parse_args()
    logging.disable(logging.WARNING)
    for method, dtype, seed, rate in plan(wanted.seeds, wanted.methods, wanted.dtypes):
        this = {"method": method, "dtype": dtype, "seed": seed, "rate": rate}
        if key(this) in map(key, stored_runs(RESULTS)):
            continue
        new = run(method, dtype, seed, learning_rate=rate)
        print(json.dumps(new, ensure_ascii=False), flush=True)
        # Read again: another process may have measured other methods meanwhile.
        runs = sorted([*stored_runs(RESULTS), new], key=key)
        write_json(RESULTS, {"machine": machine(), "versions": versions(), "runs": runs})


if __name__ == "__main__":
    main()
