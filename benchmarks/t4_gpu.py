"""Does the job of chapter 18 fit a T4, and does the ledger say how tightly?

    python benchmarks/t4_gpu.py [--limit-gb 15] [--steps 30]
    python benchmarks/t4_gpu.py --make FOLDER     write the model only; --checkpoint FOLDER reads it
    python benchmarks/t4_gpu.py --dry     no GPU: a tiny shape in float32; nothing is measured

Any NVIDIA GPU plays the T4: torch may take no more than the limit, and the arithmetic is float16,
which is what a T4 has. The model has rinna 3.6b's true shape and random weights, the rows are texts
of the micro model's corpus, joined to lengths up to 512 tokens, the run is `finetune` with the
standard preset. The peak must stay within 5 % of the ledger's, or the script ends with 1. Losses
are looked at for NaN only: random weights learn nothing worth a number.
Writes benchmarks/results/t4_gpu.json.
"""
import argparse
import json
import logging
import math
import random
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

from transformers.utils import logging as transformers_logging

from common import copy_tokenizer, limit_memory
from memory_gpu import TINY, save_random
from qlora_nb.core import InputError, machine, versions, write_json
from qlora_nb.activations import ledger
from qlora_nb.exam import load_data
from qlora_nb.finetune import finetune
from qlora_nb.memory import read_shape
from qlora_nb.micro import micro_folder
from qlora_nb.models import pick_device
from qlora_nb.options import FinetuneOptions
from qlora_nb.plan import make_plan, recipe_of
from qlora_nb.readers import conversations, read_rows
from qlora_nb.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results" / "t4_gpu.json"
TOLERANCE = 0.05


def write_rows(path: Path, tokenizer, count: int, longest: int) -> None:
    "Questions whose answers are texts of the shipped corpus; half of the rows are nearly full."
    rng = random.Random(0)
    talks = conversations(read_rows(micro_folder() / "train.jsonl"))
    texts = [talk[-1]["content"] for talk in talks]
    sizes = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            room = longest - 40 if number % 2 else rng.randint(16, longest - 40)  # 40: the question
            answer = ""
            while room > 0:
                chosen = rng.randrange(len(texts))
                answer, room = answer + texts[chosen], room - sizes[chosen]
            row = {"instruction": f"{number}番目の話をしてください。", "output": answer}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def stand_in(folder: Path, shape, device: torch.device) -> None:
    "A checkpoint of the shape with random weights and the micro model's tokenizer."
    save_random(shape, str(folder), device)
    copy_tokenizer(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit-gb", type=float, default=15.0)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--make", help="write the stand-in for the model to a folder, and end")
    parser.add_argument("--checkpoint", help="a folder that --make has written")
    parser.add_argument("--dry", action="store_true", help="a tiny shape on the CPU; no result")
    wanted = parser.parse_args()
    transformers_logging.set_verbosity_error()
    try:
        device = pick_device("cpu" if wanted.dry else "cuda")
    except InputError:
        print("t4_gpu.py needs an NVIDIA GPU that torch can see, and there is none", file=sys.stderr)
        return 2
    if not (wanted.dry or wanted.make):
        limit_memory(wanted.limit_gb)
    shape, longest = read_shape("rinna/japanese-gpt-neox-3.6b"), 512
    if wanted.dry:
        shape, longest = replace(TINY, vocab=2048), 64  # the tokenizer's
    if wanted.make:
        return stand_in(Path(wanted.make), shape, device) or 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(wanted.checkpoint or f"{place}/model")
        rows = Path(place) / "rows.jsonl"
        if not wanted.checkpoint:
            stand_in(folder, shape, device)
        tokenizer = load_tokenizer(folder)
        write_rows(rows, tokenizer, 40 if wanted.dry else 600, longest)
        options = FinetuneOptions(
            model=str(folder), data=str(rows), output=f"{place}/run", preset="standard",
            device=device.type, sequence_length=longest, held_out=8,
            steps=2 if wanted.dry else wanted.steps,
            compute_dtype="float32" if wanted.dry else "float16", max_new_tokens=8)
        plan = make_plan(options)
        recipe = recipe_of(plan, load_data(plan, tokenizer).train)
        entry = ledger(shape, recipe)
        record = finetune(options)
    metrics = record["metrics"]
    losses = [row["loss"] for row in record["history"] if "loss" in row]
    assert all(math.isfinite(loss) for loss in losses), losses
    print(f"{len(losses)} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}, "
          f"{metrics['tokens_per_second']:,.0f} tokens a second, predicted {entry.counted / 1e9:.3f} GB")
    if wanted.dry:
        return 0
    off_by = entry.counted / metrics["peak_memory"] - 1
    print(f"measured {metrics['peak_memory'] / 1e9:.3f} GB, off by {off_by:+.2%}")
    write_json(RESULTS, {
        "machine": machine(), "versions": versions(), "limit_gb": wanted.limit_gb,
        "model": "rinna/japanese-gpt-neox-3.6b", "weights": "random", "recipe": asdict(recipe),
        "moment": entry.moment, "predicted_peak": entry.counted, "peak": metrics["peak_memory"],
        "off_by": off_by, "steps": metrics["steps"], "losses": losses,
        "tokens_per_second": metrics["tokens_per_second"]})
    return int(abs(off_by) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
