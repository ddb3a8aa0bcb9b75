"""What do 8-bit optimizer states cost in quality? A real QLoRA fine-tune of the micro model.

    python benchmarks/optimizers_cpu.py [--seeds 3] [--steps 120]

Four ways to keep AdamW's two running means train the same adapters on the same batches. Held-out
loss is taken on the way, exact match at the end.
Writes benchmarks/results/optimizers_cpu.json after every run; a run that stands there already,
made with the same package versions, is not made again.
"""
import argparse
import logging
import random
import warnings
from functools import partial
from pathlib import Path

import torch

from common import stored_runs
from qlora_nb.core import machine, versions, write_json
from qlora_nb.data import Collator
from qlora_nb.exam import evaluate, load_data, mean_loss
from qlora_nb.models import fetch_model, load_base
from qlora_nb.optimizers import AdamW, EightBit, Plain
from qlora_nb.options import FinetuneOptions
from qlora_nb.plan import make_plan
from qlora_nb.prepare import add_lora
from qlora_nb.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results" / "optimizers_cpu.json"
RANK, BATCH, EVERY, RATE = 64, 16, 20, 2e-3


class Linear(EightBit):
    "The naive way: 8-bit codes at equal distances, in blocks of 256."

    def write(self, value):
        self.shape, top = value.shape, 127 if self.signed else 255
        flat = value.reshape(-1)
        rows = torch.nn.functional.pad(flat, (0, -len(flat) % 256)).view(-1, 256)
        self.unit = rows.abs().amax(1, keepdim=True).clamp_min(1e-38) / top
        self.codes = (rows / self.unit).round().to(torch.int16)

    @property
    def nbytes(self):
        return self.codes.numel() + self.unit.nbytes  # a code would fit into a byte

    def read(self):
        rows = self.codes.float() * self.unit
        return rows.view(-1)[:self.shape.numel()].view(self.shape)


KEEPERS = {
    "float32": Plain,
    "8 bits, dynamic map, blocks of 256": EightBit,
    "8 bits, dynamic map, one block": partial(EightBit, block_size=2**20),
    "8 bits, linear codes, blocks of 256": Linear,
}


def run(name: str, seed: int, steps: int) -> dict:
    "Train once; the loss of every step, the held-out loss on the way, exact match at the end."
    folder = fetch_model("micro")
    tokenizer = load_tokenizer(folder)
    model = add_lora(load_base(folder, "nf4"), RANK, 2.0 * RANK, seed=seed)
    data = load_data(make_plan(FinetuneOptions(seed=seed)), tokenizer)
    exam, collate = next(iter(data.exams.values())), Collator(tokenizer)
    rows, held_out = list(data.train), random.Random(0).sample(exam.examples, 200)
    random.Random(seed).shuffle(rows)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = AdamW(trained, lr=RATE, weight_decay=0.0, keep=KEEPERS[name])
    losses, held = [], [[0, mean_loss(model, held_out, collate)]]
    for i in range(steps):
        model.train()
        optimizer.param_groups[0]["lr"] = RATE * min(1, (i + 1) / 10) * (1 - i / steps)
        loss = model(**collate(rows[i * BATCH:(i + 1) * BATCH])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (i + 1) % EVERY == 0:
            held.append([i + 1, mean_loss(model, held_out, collate)])
    exact = evaluate(model, tokenizer, exam, 24, 128)["exact_match"]
    return {"keeper": name, "seed": seed, "steps": steps, "losses": losses, "held_out": held,
            "exact_match": exact, "state_bytes": optimizer.state_bytes()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--steps", type=int, default=120)
    wanted = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    for seed in range(wanted.seeds):  # seeds outside: an interrupted benchmark is balanced
        for name in KEEPERS:
            done = {(r["keeper"], r["seed"], r["steps"]) for r in stored_runs(RESULTS)}
            if (name, seed, wanted.steps) in done:
                continue
            new = run(name, seed, wanted.steps)
            print(name, seed, new["held_out"][-1], new["exact_match"], flush=True)
            write_json(RESULTS, {"machine": machine(), "versions": versions(),
                                 "runs": [*stored_runs(RESULTS), new]})


if __name__ == "__main__":
    main()
