"""Which merged model is the one that was trained? Four ways to use an adapter, on the micro model.

    python benchmarks/merging.py [--seeds 3]

Each seed trains one adapter beside the NF4 base. The ways are compared with the live adapter by the
Kullback-Leibler divergence of the next token's distribution, averaged over the graded tokens of the
held-out answers, by exact match on the held-out questions, and by the bytes of the files to keep,
with everything that is not in 4 bits in float16 (or float32, where the name says so).
Writes benchmarks/results/merging.json.
"""
import argparse
import copy
import json
import logging
import statistics
import tempfile
from pathlib import Path

import torch
from torch.nn.functional import kl_div

from qlora_nb.core import machine, versions, write_json
from qlora_nb.data import Collator
from qlora_nb.exam import evaluate
from qlora_nb.finetune import set_up, train
from qlora_nb.model_files import load_adapter, save_4bit, save_adapter
from qlora_nb.models import fetch_model, load_base
from qlora_nb.options import FinetuneOptions
from qlora_nb.plan import make_plan
from qlora_nb.qlora import has_lora, merge_lora

RESULTS = Path(__file__).parent / "results" / "merging.json"


def ways(live, adapter: Path) -> dict:
    "Name -> model: everything that can be made of one base and one adapter."
    original = load_adapter(load_base(fetch_model("micro"), "none"), adapter)
    merged = merge_lora(copy.deepcopy(live))
    return {
        "live": live,
        "dequantized base + BA, float32": merged,
        "dequantized base + BA, float16": copy.deepcopy(merged).half().float(),
        "16-bit base + BA": merge_lora(original).half().float(),
        "requantized": merge_lora(copy.deepcopy(live), requantize=True),
    }


@torch.no_grad()
def graded_log_probabilities(model, exam, collator) -> torch.Tensor:
    "Log-probabilities of every token of the vocabulary: float64, (graded tokens, vocabulary)."
    found = []
    for start in range(0, len(exam.examples), 64):
        batch = collator(exam.examples[start:start + 64])
        graded = batch.pop("labels")[:, 1:] != -100
        logits = model.eval()(**batch).logits[:, :-1][graded]
        found.append(logits.double().log_softmax(-1))  # the smallest divergences are 1e-12
    return torch.cat(found)


def bytes_to_keep(name: str, model, folder: Path) -> int:
    "What the way costs on disk: model, and adapter where it stays apart."
    model = copy.deepcopy(model)
    model = model if "float32" in name else model.half()
    if has_lora(model):
        save_adapter(model.float(), folder / "adapter")
        model = load_base(fetch_model("micro"), backend="reference").half()
    if name in ("live", "requantized"):
        save_4bit(model, folder / "model")
    else:
        model.save_pretrained(folder / "model")
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def run(seed: int) -> list[dict]:
    "Train one adapter and measure every way to use it."
    plan = make_plan(FinetuneOptions(backend="reference", seed=seed, eval_steps=0,
                                     save_steps=100_000))
    setup = set_up(plan)
    exam, collator, rows = setup.data.exams["held-out"], Collator(setup.tokenizer), []
    with tempfile.TemporaryDirectory() as folder:
        train(setup, folder)
        save_adapter(setup.model, Path(folder) / "adapter")
        truth = graded_log_probabilities(setup.model, exam, collator)
        for name, model in ways(setup.model, Path(folder) / "adapter").items():
            guess = graded_log_probabilities(model, exam, collator)
            answers = evaluate(model, setup.tokenizer, exam, plan.max_new_tokens, 128)
            divergence = kl_div(guess, truth, reduction="batchmean", log_target=True)
            rows.append({"way": name, "seed": seed, "kl": float(divergence),
                         "exact_match": answers["exact_match"],
                         "bytes": bytes_to_keep(name, model, Path(folder) / name)})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    wanted = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = []
    for seed in range(wanted.seeds):
        rows += run(seed)
        print(json.dumps(rows[-5:], indent=1), flush=True)
    table = []
    for name in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == name]
        table.append({"way": name, "bytes": mine[0]["bytes"],
                      **{key: statistics.mean(row[key] for row in mine) for key in ("kl", "exact_match")},
                      **{f"{key}_by_seed": [row[key] for row in mine] for key in ("kl", "exact_match")}})
    write_json(RESULTS, {"question": __doc__.splitlines()[0], "machine": machine(),
                         "versions": versions(), "seeds": wanted.seeds, "ways": table})


if __name__ == "__main__":
    main()
