"""What does the recipe of this library gain over the plain one, and over 16-bit training?

    python benchmarks/recipe.py [--rounds 10] [--batch 4] [--compute-dtype float16] [--limit-gb 15]
    python benchmarks/recipe.py --quick     two small batches; nothing is written
    --checkpoint FOLDER                     of rinna's shape, on a GPU; else one is made

Plain is what the documentation of transformers, peft and bitsandbytes shows: a model in NF4 with
double quantization, `prepare_model_for_kbit_training`, LoRA on all linear layers, padded batches
and the loss that the model itself computes. Ours is the same with packed batches, logits of graded
tokens alone and 16 bits wherever they are enough. Beside them 16-bit LoRA and full fine-tuning, as
plain. All take steps on the same examples in turns, through accelerate as the Trainer does it, and
without dropout, so that their losses can be compared; then each one's largest batch is sought by
doubling, on a GPU.

Without a GPU the model is the micro model, in float32, on its own data: in random batches
("micro"), and in batches of nearly equal length ("sorted"), where packing has little to gain. On a
GPU it has rinna 3.6b's true shape and random weights; its rows have lengths drawn from a log-normal
distribution with a median of 120 tokens, cut at 512, graded from the middle on ("mixed"), or 512
tokens each ("full"). Model-FLOP utilization divides `operations`, without recomputation and with
the head for every token, by the time and by the rate of one large product of matrices, measured in
the same run.
Writes benchmarks/results/recipe_cpu.json, or recipe_<gpu>.json, anew after each part.
"""
import argparse
import gc
import logging
import math
import random
import statistics
import sys
import tempfile
from pathlib import Path

import torch

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

import bitsandbytes as bnb
from accelerate import Accelerator
from accelerate.utils import send_to_device
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq
from transformers.utils import logging as transformers_logging

from common import limit_memory, seconds
from memory_gpu import save_random
from qlora_nb.core import lacks_memory, machine, place, versions, write_json
from qlora_nb.data import IGNORED, Collator
from qlora_nb.exam import load_data
from qlora_nb.lean import training_loss
from qlora_nb.loading import quantization_config
from qlora_nb.memory import read_shape
from qlora_nb.micro import micro_folder
from qlora_nb.models import load_base, pick_device
from qlora_nb.options import FinetuneOptions, resolve
from qlora_nb.plan import make_plan
from qlora_nb.preflight import matmul_rate, operations
from qlora_nb.prepare import prepare
from qlora_nb.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results"
RINNA = "rinna/japanese-gpt-neox-3.6b"
CONTESTANTS = ("ours", "plain", "LoRA", "full")
LONGEST = 512  # tokens of a row


def made_up_rows(kind: str, vocabulary: int, count: int) -> list[dict]:
    "Examples of random tokens, graded from the middle on."
    rng, rows = random.Random(0), []
    for _ in range(count):
        drawn = round(rng.lognormvariate(math.log(120), 0.9))
        size = LONGEST if kind == "full" else max(16, min(drawn, LONGEST))
        ids = [rng.randrange(vocabulary) for _ in range(size)]
        rows.append({"input_ids": ids, "labels": [IGNORED] * (size // 2) + ids[size // 2:]})
    return rows


def by_length(rows: list[dict], batch: int) -> list[dict]:
    "The rows in batches of nearly equal length, in random order."
    rows = sorted(rows, key=lambda row: len(row["input_ids"]))
    batches = [rows[i:i + batch] for i in range(0, len(rows) - batch + 1, batch)]
    random.Random(0).shuffle(batches)
    return [row for chosen in batches for row in chosen]


class Contestant:
    "A model with its optimizer and its way to make a batch."

    def __init__(self, name: str, folder: Path, tokenizer, device, dtype: torch.dtype):
        self.name, self.device, self.full = name, device, name == "full"
        self.shape = read_shape(str(folder))
        self.options = resolve(FinetuneOptions(
            preset="standard", compute_dtype=str(dtype).removeprefix("torch."), dropout=0.0))
        gc.collect()
        before = self._allocated()
        model, self.collate = self._make(folder, tokenizer, dtype)
        trained = [p for p in model.parameters() if p.requires_grad]
        paged = name == "ours" and device.type == "cuda"
        optimizer = (bnb.optim.PagedAdamW if paged else torch.optim.AdamW)(trained, lr=2e-4)
        mixed = {torch.float32: "no", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=device.type == "cpu")
        self.model, self.optimizer = self.accelerator.prepare(model.train(), optimizer)
        self.trained, self.rest = trained, self._allocated() - before

    def _make(self, folder: Path, tokenizer, dtype: torch.dtype):
        options, device = self.options, self.device
        if self.name == "ours":
            model = prepare(load_base(folder, "nf4", True, dtype, device), options.rank,
                            options.alpha, dtype=dtype, gradient_checkpointing=device.type == "cuda")
            return model, Collator(tokenizer, packing=True)
        four_bit = quantization_config("nf4", True, dtype) if self.name == "plain" else None
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, device_map={"": device}, quantization_config=four_bit)
        model.config.use_cache = False  # as the Trainer has it
        recompute = device.type == "cuda"
        if four_bit:
            model = prepare_model_for_kbit_training(model, recompute)
        elif recompute:
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        for layer in model.modules():  # or bitsandbytes would repack it, and lose gradients
            if isinstance(layer, bnb.nn.Linear4bit):
                layer.support_avx512bf16_for_cpu = False
        if not self.full:
            torch.manual_seed(options.seed)
            model = get_peft_model(model, LoraConfig(
                r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout,
                target_modules="all-linear", task_type="CAUSAL_LM"))
        return model, DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)

    def _allocated(self) -> int:
        return torch.cuda.memory_allocated() if self.device.type == "cuda" else 0

    def step(self, rows: list[dict]) -> float:
        "One optimizer step on `rows`; the loss."
        torch.manual_seed(0)
        batch = send_to_device(self.collate([dict(row) for row in rows]), self.device)
        with self.accelerator.autocast():
            loss = (training_loss(self.model, batch) if self.name == "ours"
                    else self.model(**batch).loss)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.trained, self.options.max_grad_norm)
        before = self._allocated()
        self.optimizer.step()
        self.rest += self._allocated() - before  # its states, which the first step makes
        self.optimizer.zero_grad()
        return loss.item()

    def timed(self, rows: list[dict]) -> dict:
        "One step: its loss, time, and on a GPU the peak that it would have alone."
        held, losses = self._allocated() - self.rest, []
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        taken = seconds(lambda: losses.append(self.step(rows)), self.device, "wall")
        peak = torch.cuda.max_memory_allocated() - held if self.device.type == "cuda" else None
        return {"seconds": taken, "loss": losses[0], "peak": peak}


def tokens_of(rows: list[dict]) -> int:
    return sum(len(row["input_ids"]) for row in rows)


def race(contestants: list[Contestant], rows: list[dict], batch: int, rounds: int) -> dict:
    "Every contestant steps through the same batches, in turns; the first round warms up."
    found = {c.name: [] for c in contestants}
    for number in range(rounds + 1):
        chosen = rows[number * batch:(number + 1) * batch]
        for contestant in contestants:
            found[contestant.name].append(
                contestant.timed(chosen) | {"tokens": tokens_of(chosen)})
    return {name: runs[1:] for name, runs in found.items()}


def summary(contestants: list[Contestant], found: dict, bound: float) -> dict:
    "Medians, and the median over rounds of the ratio to the plain recipe."
    table = {}
    for contestant in contestants:
        runs = found[contestant.name]
        speeds = [run["tokens"] / run["seconds"] for run in runs]
        plain = [run["tokens"] / run["seconds"] for run in found["plain"]]
        work = [operations(contestant.shape, run["tokens"]) * (1.5 if contestant.full else 1)
                / run["seconds"] for run in runs]
        peaks = [run["peak"] for run in runs if run["peak"]]
        table[contestant.name] = {
            "tokens_per_second": statistics.median(speeds),
            "against_plain": statistics.median(a / b for a, b in zip(speeds, plain)),
            "utilization": statistics.median(work) / bound,
            "losses": [run["loss"] for run in runs], "peak": max(peaks, default=None),
        }
    return table


def largest(contestant: Contestant, rows: list[dict]) -> dict:
    "The largest power of two of rows that fits in memory when nothing else is there, its speed."
    best, batch = {}, 1
    while 4 * batch <= len(rows):
        parts = [rows[i:i + batch] for i in range(0, 4 * batch, batch)]
        try:
            runs = [contestant.timed(part) | {"tokens": tokens_of(part)} for part in parts]
        except Exception as error:  # cuBLAS has words of its own
            if not lacks_memory(error):
                raise
            break
        speed = statistics.median(run["tokens"] / run["seconds"] for run in runs[1:])
        best = {"batch": batch, "tokens_per_second": speed, "peak": max(r["peak"] for r in runs)}
        batch *= 2
    return best


def shown(table: dict) -> str:
    lines = []
    for name, row in table.items():
        peak = f", peak {row['peak'] / 1e9:.2f} GB" if row["peak"] else ""
        lines.append(f"  {name:14} {row['tokens_per_second']:9,.0f} tokens/s, "
                     f"{row['against_plain']:.2f} x plain, {row['utilization']:.1%} of a matrix "
                     f"product{peak}, mean loss {statistics.mean(row['losses']):.6f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, help="rows of a step (default: 4, micro model: 32)")
    parser.add_argument("--compute-dtype", choices=("bfloat16", "float16"), default="bfloat16",
                        help="on a GPU")
    parser.add_argument("--limit-gb", type=float, help="use no more of the GPU's memory")
    parser.add_argument("--only", choices=CONTESTANTS, nargs="+", default=CONTESTANTS)
    parser.add_argument("--quick", action="store_true", help="two small batches; nothing is written")
    parser.add_argument("--checkpoint", help="a folder with a checkpoint of rinna's shape")
    wanted = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    device = pick_device()
    cuda = device.type == "cuda"
    dtype = getattr(torch, wanted.compute_dtype) if cuda else torch.float32
    if cuda and wanted.limit_gb:
        limit_memory(wanted.limit_gb)
    tokenizer = load_tokenizer(micro_folder() / "model")
    batch, rounds = wanted.batch or (4 if cuda else 32), 1 if wanted.quick else wanted.rounds
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(wanted.checkpoint or folder) if cuda else micro_folder() / "model"
        if cuda and not wanted.checkpoint:
            save_random(read_shape(RINNA), str(folder), device)
        if cuda:
            kinds = {kind: made_up_rows(kind, 2000, 1024) for kind in ("mixed", "full")}
        else:
            plan = make_plan(FinetuneOptions(sequence_length=LONGEST))
            rows = list(load_data(plan, tokenizer).train)
            random.Random(0).shuffle(rows)
            kinds = {"micro": rows, "sorted": by_length(rows, batch)}
        names = [name for name in CONTESTANTS if name in {*wanted.only, "plain"}]
        if dtype is torch.float16:  # a loss scaler refuses weights in half precision
            names = [name for name in names if name != "full"]
        contestants = [Contestant(name, folder, tokenizer, device, dtype) for name in names]
        bound, results = matmul_rate(device, dtype, 8192 if cuda else 1024), {}
        limited = f"_{wanted.limit_gb:g}GB_{wanted.compute_dtype}" if wanted.limit_gb else ""

        def store():
            if not wanted.quick:
                write_json(RESULTS / f"recipe_{place(device)}{limited}.json", {
                    "machine": machine(), "versions": versions(),
                    "model": RINNA if cuda else "micro", "weights": "random" if cuda else "shipped",
                    "compute_dtype": str(dtype)[6:], "limit_gb": wanted.limit_gb,
                    "matmul_rate": bound, "data": results})

        for kind, rows in kinds.items():
            size = min(batch, len(rows) // (rounds + 1))
            table = summary(contestants, race(contestants, rows, size, rounds), bound)
            print(f"{kind}, {size} rows a step\n{shown(table)}", flush=True)
            results[kind] = {"batch": size, "contestants": table}
            store()
        del contestants
        for name in names if cuda else []:
            for kind, rows in kinds.items():
                gc.collect()
                torch.cuda.empty_cache()
                alone = largest(Contestant(name, folder, tokenizer, device, dtype), rows)
                results[kind]["contestants"][name]["largest"] = alone
                print(f"{kind}, {name}: {alone}", flush=True)
                store()
    return 0


if __name__ == "__main__":
    sys.exit(main())
