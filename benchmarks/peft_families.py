"""What else could be trained instead? Seven methods on the same task of the micro model.

    python benchmarks/peft_families.py [--seeds 2]

Every method gets the same search (the same learning rates, the same few steps, judged by the loss
on a third of the held-out questions), then the same rows for the same steps, and answers the
other two thirds. Measured beside: forgetting (loss on text like that of the pre-training),
over-fitting on 64 rows, and what a forward pass costs, all methods taking turns.
Writes benchmarks/results/peft_families.json after every run; runs that stand there are not made
again.
"""
import json
import math
import random
import statistics
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from common import on_one_thread, seeds_parser
from qlora_nb.core import machine, versions, write_json
from qlora_nb.data import FORMATS, Collator, encode_all
from qlora_nb.exam import make_exam
from qlora_nb.lora import LoRALinear
from qlora_nb.micro import corpus, micro_folder, token_rows
from qlora_nb.models import load_base
from qlora_nb.peft_families import (
    IA3, Bottleneck, PrefixTuning, PromptTuning, PTuning, wrap_layers,
)
from qlora_nb.readers import conversations, read_rows
from qlora_nb.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results" / "peft_families.json"
MATRICES = ["query_key_value", "attention.dense", "dense_h_to_4h", "dense_4h_to_h"]
RATES = [1.25e-4, 5e-4, 2e-3, 8e-3, 3e-2, 1e-1, 3e-1, 1.0]
SEARCH_STEPS, STEPS, BATCH = 30, 150, 16
FEW, FEW_STEPS = 64, 60  # rows and steps of the test of over-fitting
PROMPT = 16  # virtual tokens
TOKENIZER = load_tokenizer(micro_folder() / "model")
COLLATE = Collator(TOKENIZER)


def build(name: str, seed: int = 0):
    "A fresh model with the method's new parameters, and the function ids -> logits."
    torch.manual_seed(seed)
    model = load_base(micro_folder() / "model", "none")
    virtual = {"prompt tuning": PromptTuning, "P-tuning": PTuning, "prefix tuning": PrefixTuning}
    if name in virtual:
        return virtual[name](model, PROMPT)
    if name == "LoRA":
        wrap_layers(model, dict.fromkeys(MATRICES, lambda layer: LoRALinear(layer, 8, 16)))
    elif name == "bottleneck adapter":
        wrap_layers(model, dict.fromkeys(["attention.dense", "dense_4h_to_h"],
                                            lambda layer: Bottleneck(layer, 32)))
    elif name == "(IA)³":
        wrap_layers(model, {"query_key_value": IA3,
                               "dense_4h_to_h": lambda layer: IA3(layer, on_input=True)})
    return InPlace(model)


class InPlace(torch.nn.Module):
    "A model whose layers were replaced (or that is trained in full), as ids -> logits."

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(ids, use_cache=False).logits


METHODS = ["prompt tuning", "P-tuning", "prefix tuning", "(IA)³", "LoRA", "bottleneck adapter",
           "full fine-tuning"]


def loss_of(method, rows) -> torch.Tensor:
    "Nats per graded token; rows are padded on the right, where no token of theirs looks."
    batch = COLLATE(rows)
    logits, labels = method(batch["input_ids"])[:, :-1], batch["labels"][:, 1:]
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def fit(method, rows: list, rate: float, steps: int, seed: int, batch: int = BATCH) -> list[float]:
    "AdamW with a short rise and a cosine fall; returns the loss of each step."
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    shape = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(
        (s + 1) / 8, (1 + math.cos(math.pi * s / steps)) / 2))
    generator, losses = torch.Generator().manual_seed(seed), []
    method.train()
    for _ in range(steps):
        chosen = torch.randperm(len(rows), generator=generator)[:batch].tolist()
        loss = loss_of(method, [rows[i] for i in chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        shape.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def mean_loss(method, rows: list) -> float:
    "Nats per graded token over all rows."
    method.eval()
    total = graded = 0
    for start in range(0, len(rows), 64):
        part = rows[start:start + 64]
        count = sum(label != -100 for row in part for label in row["labels"][1:])
        total, graded = total + float(loss_of(method, part)) * count, graded + count
    return total / graded


@torch.no_grad()
def exact_match(method, exam, chosen: list[int], longest: int = 24) -> float:
    "The share of right answers, word by word greedily, rows of one length together."
    method.eval()
    right = 0
    lengths = {len(exam.prompts[i]) for i in chosen}
    for length in lengths:
        group = [i for i in chosen if len(exam.prompts[i]) == length]
        ids = torch.tensor([exam.prompts[i] for i in group])
        ended = torch.zeros(len(group), dtype=torch.bool)
        for _ in range(longest):
            word = method(ids)[:, -1].argmax(-1).masked_fill(ended, TOKENIZER.eos_token_id)
            ids = torch.cat([ids, word[:, None]], 1)
            ended |= word == TOKENIZER.eos_token_id
            if ended.all():
                break
        answers = [TOKENIZER.decode(row, skip_special_tokens=True).strip()
                   for row in ids[:, length:]]
        right += sum(answer == exam.expected[i] for answer, i in zip(answers, group))
    return right / len(chosen)


class Task:
    "Rows to train on, questions to choose a rate by, questions to report, and old text."

    def __init__(self):
        form = FORMATS["rinna"]
        talks = conversations(read_rows(micro_folder() / "train.jsonl"))
        self.train = encode_all(talks, TOKENIZER, form, 512)
        held_out = conversations(read_rows(micro_folder() / "held_out.jsonl"))
        self.exam = make_exam(held_out, TOKENIZER, form, 512)
        numbers = range(len(self.exam.prompts))
        self.choose = [i for i in numbers if i % 3 == 0]
        self.report = [i for i in numbers if i % 3]
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(0))
        self.few = [self.train[i] for i in order[:FEW].tolist()]
        # The same world, other draws than those that the model was trained on.
        old = token_rows(corpus(0, documents=600), TOKENIZER)[:96]
        self.old = [{"input_ids": row.tolist(), "labels": row.tolist()} for row in old]

    def held_out_loss(self, method, chosen) -> float:
        return mean_loss(method, [self.exam.examples[i] for i in chosen])


def search(task: Task, name: str, losses: dict) -> dict:
    "The loss that each rate reaches in a few steps, measured where it is missing; the best rate."
    for rate in RATES:
        if str(rate) in losses:
            continue
        method = build(name)
        fit(method, task.train, rate, SEARCH_STEPS, seed=0)
        losses[str(rate)] = task.held_out_loss(method, task.choose)
    finite = {rate: loss for rate, loss in losses.items() if math.isfinite(loss)}
    return {"losses": losses, "rate": float(min(finite, key=finite.get))}


def run(task: Task, name: str, seed: int, rate: float) -> dict:
    "Train on all rows; ask, and read old text."
    method = build(name, seed)
    counted = sum(p.numel() for p in method.parameters() if p.requires_grad)
    frozen = [p.clone() for p in method.parameters() if not p.requires_grad]
    losses = fit(method, task.train, rate, STEPS, seed)
    after = [p for p in method.parameters() if not p.requires_grad]
    return {"seed": seed, "trained": counted, "frozen": sum(p.numel() for p in frozen),
            "frozen_unchanged": all(map(torch.equal, frozen, after)),
            "train_loss": statistics.mean(losses[-10:]),
            "loss": task.held_out_loss(method, task.report),
            "exact_match": exact_match(method, task.exam, task.report),
            "old_text_loss": mean_loss(method, task.old)}


def few(task: Task, name: str, rate: float) -> dict:
    "Train on few rows, many times over."
    method = build(name)
    before = task.held_out_loss(method, task.report)
    fit(method, task.few, rate, FEW_STEPS, seed=0)
    return {"before": before, "train_loss": mean_loss(method, task.few),
            "loss": task.held_out_loss(method, task.report),
            "exact_match": exact_match(method, task.exam, task.report),
            "old_text_loss": mean_loss(method, task.old)}


def latency(rounds: int = 150) -> dict:
    "Processor time of one forward pass against the base model's, same round; median of all."
    methods = {"base": build("base")} | {name: build(name) for name in METHODS[:-1]}
    merged = build("LoRA")
    for name, layer in list(merged.named_modules()):
        if isinstance(layer, LoRALinear):
            layer.merge()
            merged.set_submodule(name, layer.base_layer)
    methods["LoRA, merged"] = merged
    ids = torch.randint(100, 2000, (1, 32), generator=torch.Generator().manual_seed(0))
    caches = {name: _filled(method, ids) for name, method in methods.items()}
    ratios = {name: {"read": [], "next": []} for name in methods}
    for i in range(rounds + 5):
        times = {}
        for name in random.sample(list(methods), len(methods)):  # no fixed neighbour
            method = methods[name]
            times[name] = (_seconds(lambda: method.eval()(ids)),
                           _seconds(lambda: _next(method, caches[name])))
        for name, (read, following) in times.items() if i >= 5 else ():
            ratios[name]["read"].append(read / times["base"][0])
            ratios[name]["next"].append(following / times["base"][1])
    return {name: {kind: {"median": statistics.median(values),
                          "quartiles": statistics.quantiles(values, n=4)[::2]}
                   for kind, values in kinds.items()} for name, kinds in ratios.items()}


@torch.no_grad()
def _seconds(call, times: int = 5) -> float:
    start = time.process_time()  # on one thread, what the clock would say on an idle machine
    for _ in range(times):
        call()
    return time.process_time() - start


@torch.no_grad()
def _filled(method, ids) -> DynamicCache:
    "The cache after a text of 32 tokens, and after the virtual tokens if there are any."
    virtual = PROMPT if isinstance(method, (PromptTuning, PrefixTuning)) else 0
    ids = torch.cat([ids.flip(1)[:, :virtual], ids], 1)  # any token fills a place
    return method.model(ids, use_cache=True).past_key_values


def _next(method, cache) -> None:
    "One more token, which the cache then forgets."
    method.model(torch.tensor([[100]]), past_key_values=cache)
    cache.crop(-1)


def main():
    wanted = seeds_parser(__doc__.splitlines()[0], 2).parse_args()
    on_one_thread()
    task, about = Task(), {"machine": machine(), "versions": versions()}
    old = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    found = old if old.get("versions") == about["versions"] else about
    base = build("base")
    found["base"] = {"exact_match": exact_match(base, task.exam, task.report),
                     "loss": task.held_out_loss(base, task.report),
                     "old_text_loss": mean_loss(base, task.old),
                     "parameters": sum(p.numel() for p in base.parameters())}
    found["plan"] = {"rates": RATES, "search_steps": SEARCH_STEPS, "steps": STEPS, "batch": BATCH,
                     "few_rows": FEW, "few_steps": FEW_STEPS, "virtual_tokens": PROMPT,
                     "questions": len(task.report)}
    for part in ("search", "runs", "few"):
        found.setdefault(part, {})

    def keep(part, key, make):
        if key not in found[part]:
            found[part][key] = make()
            print(part, key, json.dumps(found[part][key]), flush=True)
            write_json(RESULTS, found)

    for name in METHODS:
        known = found["search"].get(name, {"losses": {}})["losses"]
        if set(known) != {str(rate) for rate in RATES}:
            found["search"].pop(name, None)
            keep("search", name, lambda: search(task, name, dict(known)))
    for seed in range(wanted.seeds):
        for name in METHODS:
            rate = found["search"][name]["rate"]
            keep("runs", f"{name} {seed}", lambda: {"method": name} | run(task, name, seed, rate))
    for name in METHODS:
        keep("few", name, lambda: few(task, name, found["search"][name]["rate"]))
    found.setdefault("latency", {})
    keep("latency", "all", latency)


if __name__ == "__main__":
    main()
