"""Does rinna 3.6b's training step fit a GPU that is not there, and in which dtype does it compute?

    python benchmarks/cuda_dry.py [--model NAME] [--batch 4] [--sequence 512]

The step of `qlora_nb.dry_run`, at the true shape, in float16 as a T4 computes and in bfloat16: the
recipe of `qlora-nb finetune`, on tensors without memory. Then the largest batch that the ledger
gives a T4, and the same step on this library's own layers. It needs no GPU and three minutes.
Writes benchmarks/results/cuda_dry.json, and ends with 1 if the ledger is off by more than 3 %.
"""
import argparse
import logging
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import torch

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

from qlora_nb.core import InputError, machine, versions, write_json
from qlora_nb.dry_run import dry_step
from qlora_nb.fits import largest_batch
from qlora_nb.memory import Recipe
from qlora_nb.processor import MemoryWatch

RESULTS = Path(__file__).parent / "results" / "cuda_dry.json"
RINNA = "rinna/japanese-gpt-neox-3.6b"
KINDS = {
    "products of matrices": ("aten.mm", "aten.linear", "aten.addmm"), "attention": ("efficient",),
    "dequantized matrices": ("dequantize_4bit",), "GELU": ("gelu",), "norms": ("layer_norm",),
    "loss": ("softmax", "nll_loss"), "optimizer": ("optimizer_update", "vector_norm", "unscale"),
}


def row(model: str, recipe: Recipe, dtype: torch.dtype, backend: str = "bitsandbytes") -> dict:
    "What one step shows."
    with MemoryWatch() as watch:
        run = dry_step(model, recipe, dtype, backend)
    print(f"{recipe.batch} rows in {dtype}: {run.peak / 1e9:.3f} GB in {run.at}, the ledger is off by "
          f"{run.off_by:+.2%}", flush=True)
    dtypes = {kind: sorted({found for name in names for found in run.dtypes(name)})
              for kind, names in KINDS.items()}
    return {
        "dtype": str(dtype).removeprefix("torch."), "recipe": asdict(run.ledger.recipe),
        "peak": run.peak, "peaks": run.peaks, "at": run.at, "parts": run.parts,
        "ledger": run.said,
        "counted": run.ledger.counted, "moment": run.ledger.moment, "off_by": run.off_by,
        "total": run.total, "dtypes": dtypes,
        "devices": sorted(run.devices("forward", "backward")),
        "process": watch.peak}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=RINNA)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=512)
    wanted = parser.parse_args()
    warnings.simplefilter("ignore")
    try:
        recipe = Recipe(batch=wanted.batch, sequence=wanted.sequence, dropout=0.05, padding=True,
                        lean=True)
        largest = replace(recipe, batch=max(1, largest_batch(wanted.model, recipe, "T4")))
        rows = [row(wanted.model, *step) for step in (
            (recipe, torch.float16), (recipe, torch.bfloat16), (largest, torch.float16),
            (recipe, torch.float16, "reference"))]
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if wanted.model == RINNA and (wanted.batch, wanted.sequence) == (4, 512):
        write_json(RESULTS, {"machine": machine(), "versions": versions(), "model": wanted.model,
                             "rows": rows[:2], "largest": rows[2], "own layers": rows[3]})
    return int(any(abs(found["off_by"]) > 0.03 for found in rows))


if __name__ == "__main__":
    sys.exit(main())
