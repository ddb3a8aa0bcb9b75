"""Does LoRA suffer more from large batches than full fine-tuning? Equal rows, fewer and larger steps.

    python benchmarks/batches.py [--seeds 4]

LoRA Without Regret (Schulman and others, Thinking Machines 2025) finds that it does, whatever the
rank. Every contestant sees `ROWS` rows, in batches of `BATCHES`; each batch size has a search of the
rate of its own, in factors of two. It is judged by the loss on a third of the held-out questions.
Writes benchmarks/results/batches.json after every run; runs that stand there are not made again.
"""
import math
import time
from pathlib import Path
from statistics import mean


from common import on_one_thread, seeds_parser, stored_runs
from learning_rates import ALPHA, build
from peft_families import Task, fit
from qlora_nb.core import machine, versions, write_json

RESULTS = Path(__file__).parent / "results" / "batches.json"
ROWS, BATCHES = 960, (8, 32)
RATES = {  # (batch, whether in full) -> the rates that are tried
    (8, True): (1.25e-4, 2.5e-4, 5e-4), (8, False): (1e-3, 2e-3, 4e-3),
    (32, True): (2.5e-4, 5e-4, 1e-3), (32, False): (4e-3, 8e-3, 1.6e-2)}
RANKS = (None, 8, 64)  # None: full fine-tuning
SEARCHED = 2  # seeds that try every rate; the others take the best of them


def run(task: Task, rank: int | None, batch: int, rate: float, seed: int) -> dict:
    "Train one contestant on `ROWS` rows in batches of one size."
    method, started = build(rank, ALPHA, seed), time.process_time()
    fit(method, task.train, rate, ROWS // batch, seed, batch)
    loss = task.held_out_loss(method, task.choose)
    return {"rank": rank, "batch": batch, "rate": rate, "seed": seed,
            "loss": round(loss, 5) if math.isfinite(loss) else None,
            "seconds": round(time.process_time() - started, 1)}


def best_rate(runs: list[dict], rank: int | None, batch: int) -> float:
    "The rate of least mean loss over the seeds that tried all of them."
    losses: dict = {}
    for one in runs:
        if (one["rank"], one["batch"]) == (rank, batch) and one["seed"] < SEARCHED:
            losses.setdefault(one["rate"], []).append(one["loss"])
    return min(losses, key=lambda rate: mean(losses[rate]))


def main():
    wanted = seeds_parser(__doc__.splitlines()[0], 4).parse_args()
    on_one_thread()
    task, runs = Task(), stored_runs(RESULTS)
    head = {"machine": machine(), "versions": versions(), "rows": ROWS, "batches": BATCHES,
            "alpha": ALPHA}
    arms = [(rank, batch) for batch in BATCHES for rank in RANKS]
    for seed in range(wanted.seeds):
        for rank, batch in arms:
            rates = RATES[batch, rank is None] if seed < SEARCHED else (best_rate(runs, rank, batch),)
            for rate in rates:
                plan = (rank, batch, rate, seed)
                if plan not in {(one["rank"], one["batch"], one["rate"], one["seed"]) for one in runs}:
                    runs.append(run(task, *plan))
                    print(plan, runs[-1]["loss"], f"{runs[-1]['seconds']:.0f} s", flush=True)
                    write_json(RESULTS, head | {"runs": runs})


if __name__ == "__main__":
    main()
