"""What does a training step cost on this CPU: full fine-tuning, LoRA, QLoRA?

    python benchmarks/finetune_cpu.py [--rounds 8]

The methods take turns within one process, ten steps each, so that a busy machine slows all of
them alike; ratios are of the same round. Peak memory is measured in a process of its own for each
method, and the time from the command to the first step by running the command.
Writes benchmarks/results/finetune_cpu.json.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from qlora_nb.core import machine, versions, write_json
from qlora_nb.data import count_tokens
from qlora_nb.finetune import set_up
from qlora_nb.lean import training_loss
from qlora_nb.options import FinetuneOptions
from qlora_nb.plan import make_plan
from qlora_nb.processor import MemoryWatch

RESULTS = Path(__file__).parent / "results" / "finetune_cpu.json"
CPU = torch.device("cpu")
METHODS = {
    "full fine-tuning": dict(quantization="none"),
    "LoRA": dict(quantization="none"),
    "QLoRA (NF4 + double quantization)": dict(quantization="nf4"),
}


class Method:
    "A model with its optimizer, and the batches that all methods share."

    def __init__(self, name: str):
        plan = make_plan(FinetuneOptions(**METHODS[name]))
        setup = set_up(plan, full=name == "full fine-tuning")
        self.model = setup.model.train()
        rows, size = setup.data.train, plan.batch_size
        self.batches = [setup.data.collator(rows[i:i + size]) for i in range(0, 20 * size, size)]
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def steps(self, count: int) -> tuple[float, int]:
        "Seconds and tokens of `count` steps."
        tokens, start = 0, time.perf_counter()
        for i in range(count):
            batch = self.batches[i % len(self.batches)]
            training_loss(self.model, batch).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            tokens += count_tokens(batch)
        return time.perf_counter() - start, tokens


def peak_of(name: str) -> int:
    "Peak of a process's own bytes, without mapped files, that trains with one method only."
    done = subprocess.run([sys.executable, __file__, "--peak", name], check=True, text=True,
                          capture_output=True)
    return int(done.stdout.split()[-1])


def time_to_first_step() -> float:
    "Seconds from the command to the first optimizer step, the base model's exam included."
    with tempfile.TemporaryDirectory() as folder:
        command = Path(sys.executable).with_name("qlora-nb")
        arguments = ["finetune", "--steps", "1", "--eval-steps", "0", "--output", f"{folder}/run"]
        subprocess.run([command, *arguments], check=True, capture_output=True)
        record = json.loads((Path(folder) / "run" / "run.json").read_text(encoding="utf-8"))
    return record["metrics"]["seconds_to_first_step"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--peak", choices=METHODS, help="print one method's peak memory, and end")
    wanted = parser.parse_args()
    if wanted.peak:
        with MemoryWatch() as watch:
            Method(wanted.peak).steps(10)
        return print(watch.peak)
    methods = {name: Method(name) for name in METHODS}
    rounds = []
    for _ in range(wanted.rounds + 1):
        rounds.append({name: method.steps(10) for name, method in methods.items()})
    rounds = rounds[1:]  # the first one warms up
    results = {}
    for name in METHODS:
        seconds = [r[name][0] / 10 for r in rounds]
        ratios = [r[name][0] / r["LoRA"][0] for r in rounds]
        results[name] = {
            "seconds_per_step": statistics.median(seconds),
            "tokens_per_second": statistics.median(r[name][1] / r[name][0] for r in rounds),
            "time_against_lora": statistics.median(ratios), "ratios": ratios,
            "peak_memory": peak_of(name),
        }
        print(name, {k: v for k, v in results[name].items() if k != "ratios"}, flush=True)
    write_json(RESULTS, {
        "machine": machine(), "versions": versions(), "methods": results,
        "seconds_to_first_step": sorted(time_to_first_step() for _ in range(3)),
    })


if __name__ == "__main__":
    main()
