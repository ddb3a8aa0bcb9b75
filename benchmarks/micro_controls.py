"""Does the micro model answer from what it has read? The fine-tune, and the controls beside it.

    python benchmarks/micro_controls.py [--seeds 3] [--methods NAME ...]

The base model is asked in three ways without any training. Then the same instruction data trains
QLoRA and full fine-tuning on the shipped weights, and full fine-tuning from random weights.
Writes benchmarks/results/micro_controls.json after every run; a run that stands there already,
made of the same weights with the same package versions, is not made again.
"""
import argparse
import hashlib
import json
import logging
import random
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from transformers import GPTNeoXForCausalLM

from qlora_nb.core import machine, versions, write_json
from qlora_nb.exam import ask
from qlora_nb.finetune import set_up, train
from qlora_nb.micro import cloze_prompts, micro_config, micro_folder
from qlora_nb.models import load_base
from qlora_nb.options import FinetuneOptions
from qlora_nb.plan import make_plan
from qlora_nb.readers import read_rows
from qlora_nb.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results" / "micro_controls.json"
OPTIONS = FinetuneOptions(eval_steps=0, save_steps=100_000)
METHODS = {  # what differs from `OPTIONS`
    "QLoRA": dict(),
    "full fine-tuning": dict(quantization="none", learning_rate=5e-4),
    "random weights": dict(quantization="none", learning_rate=1e-3, steps=500),
}
TRAINED = 300  # questions of the training data that are asked too


def marks(rows: list[dict], answers: list[str]) -> dict:
    "Right answers and questions, for each relation."
    asked = Counter(row["relation"] for row in rows)
    right = Counter(row["relation"] for row, answer in zip(rows, answers)
                    if answer == row["output"])
    return {name: [right[name], asked[name]] for name in sorted(asked)}


def prompts(rows: list[dict], tokenizer, template="ユーザー: {}<NL>システム: ") -> list:
    "The token ids of questions inside a template."
    texts = [template.format(row["instruction"]) for row in rows]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def read_parts() -> dict:
    "The held-out questions in both wordings, and some of the trained ones."
    parts = {name: read_rows(micro_folder() / f"{name}.jsonl")
             for name in ["held_out", "rephrased", "train"]}
    parts["train"] = random.Random(0).sample(parts["train"], TRAINED)
    return parts


def base_marks() -> dict:
    "The shipped model, untrained: in the instruct format, as plain text, and as a cloze."
    folder = micro_folder() / "model"
    model, tokenizer, rows = load_base(folder, "none"), load_tokenizer(folder), read_parts()
    held_out = rows["held_out"]
    found = {"instruct": marks(held_out, ask(model, tokenizer, prompts(held_out, tokenizer), 24)),
             "plain": marks(held_out, ask(model, tokenizer, prompts(held_out, tokenizer, "{}"), 24))}
    begins = cloze_prompts()
    known = [row for row in held_out if row["output"] in begins]
    texts = [begins[row["output"]] for row in known]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    ends = ask(model, tokenizer, ids, 24)
    whole = [f"{(begin + end).partition('。')[0]}。" for begin, end in zip(texts, ends)]
    return found | {"cloze": marks(known, whole)}


def run(method: str, seed: int) -> dict:
    "Train once and ask everything."
    plan = make_plan(replace(OPTIONS, seed=seed, **METHODS[method]))
    setup = set_up(plan, full=method != "QLoRA")
    if method == "random weights":
        torch.manual_seed(seed)
        setup.model = GPTNeoXForCausalLM(micro_config())
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train(setup, folder)
    found = {"method": method, "seed": seed, "steps": plan.steps,
             "seconds": time.perf_counter() - started}
    for name, rows in read_parts().items():
        answers = ask(setup.model, setup.tokenizer, prompts(rows, setup.tokenizer), 24)
        found[name] = marks(rows, answers)
    return found


def fingerprint() -> str:
    "The shipped weights and questions, in one number."
    digest = hashlib.sha256()
    for path in sorted(micro_folder().rglob("*")):
        if path.suffix in (".safetensors", ".jsonl", ".model"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    wanted = parser.parse_args()
    logging.disable(logging.WARNING)
    old = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    same = old.get("versions") == versions() and old.get("fingerprint") == fingerprint()
    runs = old["runs"] if same else []
    base = old["base"] if same else base_marks()
    done = {(r["method"], r["seed"]) for r in runs}
    head = {"machine": machine(), "versions": versions(), "fingerprint": fingerprint()}
    for seed in range(wanted.seeds):
        for method in wanted.methods:
            if (method, seed) in done:
                continue
            runs.append(run(method, seed))
            write_json(RESULTS, head | {"base": base, "runs": runs})
            totals = {name: [sum(m[i] for m in runs[-1][name].values()) for i in (0, 1)]
                      for name in ("train", "held_out", "rephrased")}
            print(method, seed, totals, f"{runs[-1]['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
