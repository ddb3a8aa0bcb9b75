"""Which choices of the QLoRA paper matter on the micro model? One choice at a time, over seeds.

    python benchmarks/ablations.py [--only PART ...] [--seeds 5] [--minutes 5]

Every run trains one adapter with the command's own Trainer, for `STEPS` steps of 8 rows, and is
asked the same held-out questions; runs with equal seeds see equal rows. In the parts `graded`,
`layers`, `rank` and `codebook` each contestant first gets the best of `RATES`, judged with a seed
of its own by the loss on a third of the questions, and is reported on the other two thirds.
Writes benchmarks/results/ablations.json after every run; a run that stands there already, made
with the same package versions, is not made again. One core does a run in some seconds; the first
line says how long all that is missing will take. Processes with --only of their own can share the
work.
"""
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import torch

from common import on_one_thread, seeds_parser, stored_runs
from qlora_nb.ablations import FLAWS, mixed_rows, train_adapter
from qlora_nb.blockwise import quantize
from qlora_nb.core import machine, versions, write_json
from qlora_nb.data import Collator
from qlora_nb.evaluate import mark_answers
from qlora_nb.exam import load_data
from qlora_nb.micro import micro_folder
from qlora_nb.models import load_base
from qlora_nb.nf4 import normal_float
from qlora_nb.options import FinetuneOptions
from qlora_nb.plan import make_plan
from qlora_nb.qlora import linear_layers
from qlora_nb.readers import read_rows
from qlora_nb.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results" / "ablations.json"
STEPS = 30
OPTIONS = FinetuneOptions(device="cpu", steps=STEPS, batch_size=8, eval_steps=0,
                          save_steps=100_000)
ATTENTION, MLP = "query_key_value,dense", "dense_h_to_4h,dense_4h_to_h"
RATES = (2e-3, 4e-3, 8e-3, 1.6e-2)
SEARCH_SEED = 100  # of the trials of rates, and of no other run
SIZES = (16, 32, 64, 128, 256)  # rows
# What differs from `OPTIONS`; `base` is how the frozen matrices are rounded before the training.
PARTS: dict[str, dict[str, dict]] = {
    "graded": {"answers": {}, "prompts and answers": {"train_on_prompt": True}},
    "layers": {
        "all": {}, "attention": {"target_modules": ATTENTION},
        "all, r 15": {"rank": 15}, "attention, r 40": {"rank": 40, "target_modules": ATTENTION},
        "MLP, r 24": {"rank": 24, "target_modules": MLP}},
    "rank": {str(rank): {} if rank == 8 else {"rank": rank} for rank in (1, 4, 8, 16, 64)},
    "codebook": {"nf4+dq": {}} | {name: {"base": name} for name in (
        "float32", "bfloat16", "nf4", "fp4", "nf3", "nf2")},
    "data": {f"{size} {flaw}": {"rows": [size, flaw, 0.5]} for size in SIZES for flaw in FLAWS}
    | {f"256 {share:.0%} wrong": {"rows": [256, "wrong", share]} for share in (0.75, 1.0)},
}
SEARCHED = {"graded", "layers", "rank"}  # the others take the rate of {}


@torch.no_grad()
def rounded(name: str):
    "The micro model in float32, the matrices of its layers rounded to what a format can say."
    model = load_base(micro_folder() / "model", "none")
    codes = {"nf3": normal_float(3).repeat(2), "nf2": normal_float(2).repeat(4)}
    for layer in linear_layers(model).values() if name != "float32" else ():
        if name == "bfloat16":
            layer.weight.copy_(layer.weight.bfloat16())
        else:
            layer.weight.copy_(quantize(layer.weight, codes.get(name, name)).dequantize())
    return model


class Task:
    "The rows, the questions, and one run."

    def __init__(self):
        folder = micro_folder()
        self.tokenizer = load_tokenizer(folder / "model")
        self.collator = Collator(self.tokenizer)
        self.rows = [row for row in read_rows(folder / "train.jsonl") if row["relation"] != "story"]
        self.data = {on: load_data(make_plan(replace(OPTIONS, train_on_prompt=on)), self.tokenizer)
                     for on in (False, True)}
        self.exam = list(self.data[False].exams["held-out"].examples)

    def asked(self, model) -> dict:
        "Loss and right answers, apart for the questions that rates are chosen by and the others."
        losses, right = mark_answers(model, self.exam, self.collator)
        third = [loss for i, loss in enumerate(losses) if i % 3 == 0]
        rest = [i for i in range(len(losses)) if i % 3]
        return {"choose": {"loss": round(mean(third), 5)},
                "report": {"loss": round(mean(losses[i] for i in rest), 5),
                           "right": "".join(str(int(right[i])) for i in rest)}}

    def run(self, changes: dict, seed: int) -> dict:
        "Train once and ask everything."
        options = {k: v for k, v in changes.items() if k not in ("base", "rows")}
        base = changes.get("base")
        plan = make_plan(replace(OPTIONS, seed=seed, quantization="none" if base else "nf4",
                                 **options))
        rows = mixed_rows(self.rows, *changes["rows"], seed) if "rows" in changes else None
        started = time.process_time()
        model = train_adapter(plan, self.data[plan.train_on_prompt], rows, rounded(base) if base else None)
        found = self.asked(model)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return {"changes": changes, "seed": seed, "trained": trained,
                "seconds": round(time.process_time() - started, 2)} | found


def key(run: dict) -> str:
    "What a run is known by."
    return json.dumps([run["changes"], run["seed"]], sort_keys=True)


def best_rate(changes: dict, runs: dict) -> float | None:
    "The rate of least loss among the trials that are stored; None: one is missing."
    losses = {}
    for rate in RATES:
        trial = runs.get(key({"changes": changes | {"learning_rate": rate}, "seed": SEARCH_SEED}))
        if trial is None:
            return None
        losses[rate] = trial["choose"]["loss"]
    return min(losses, key=losses.__getitem__)


def missing(runs: dict, parts: list[str], seeds: int) -> list[tuple[dict, int]]:
    "Changes and seed of every run that is not stored: trials first, then seed by seed."
    arms = [(part, changes) for part in parts for changes in PARTS[part].values()]
    trials, rest = [], []
    for part, changes in [("rank", {}), *arms]:
        searched = part in SEARCHED
        trials += [(changes | {"learning_rate": rate}, SEARCH_SEED) for rate in RATES if searched]
    for seed in range(seeds):
        for part, changes in arms:
            rate = best_rate(changes if part in SEARCHED else {}, runs)
            rest.append((changes | {"learning_rate": rate}, seed))
    wanted = {key({"changes": changes, "seed": seed}): (changes, seed)
              for changes, seed in trials + rest}
    return [pair for name, pair in wanted.items() if name not in runs]


def main():
    parser = seeds_parser(__doc__.splitlines()[0], 5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, help="begin no run after so many")
    wanted = parser.parse_args()
    on_one_thread()
    began, task = time.monotonic(), Task()
    head = {"machine": machine(), "versions": versions(), "steps": STEPS, "rates": RATES,
            "search_seed": SEARCH_SEED, "parts": PARTS}
    said = False
    while True:
        # Read again: another process may have measured other parts meanwhile.
        runs = {key(run): run for run in stored_runs(RESULTS)}
        todo = missing(runs, wanted.only, wanted.seeds)
        if not said:
            each = median([run["seconds"] for run in runs.values()] or [6])
            print(f"{len(todo)} runs of about {each:.0f} s are missing: "
                  f"{len(todo) * each / 60:.0f} minutes of one core", flush=True)
            said = True
        if not todo or wanted.minutes and time.monotonic() - began > 60 * wanted.minutes:
            break
        new = task.run(*todo[0])
        print(key(new), new["report"]["loss"], f"{new['seconds']:.1f} s", flush=True)
        runs |= {key(run): run for run in [*stored_runs(RESULTS), new]}
        write_json(RESULTS, head | {"runs": [runs[name] for name in sorted(runs)]})


if __name__ == "__main__":
    main()
