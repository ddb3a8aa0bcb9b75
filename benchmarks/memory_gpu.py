"""Does the ledger predict the peak on a GPU? rinna 3.6b's true shape, with random weights.

    python benchmarks/memory_gpu.py [--model NAME]
    python benchmarks/memory_gpu.py --dry     no GPU: two steps of a tiny shape, nothing is measured

Predicted is the ledger without the allowance for CUDA's context and without what a paged optimizer
keeps outside of torch; measured is `torch.cuda.max_memory_allocated` over two optimizer steps.
Sequences, masks and gradients are as in training; only the weights are random, which does not
change a byte. A row that does not fit is stored with what was predicted and without a peak.
Writes benchmarks/results/memory_gpu.json, anew after each group of rows.
"""
import argparse
import gc
import logging
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

import bitsandbytes as bnb
from transformers import (
    AutoModelForCausalLM, BitsAndBytesConfig, GPTNeoXConfig, GPTNeoXForCausalLM,
)
from transformers.utils import logging as transformers_logging

from qlora_nb.core import InputError, machine, versions, write_json
from qlora_nb.lean import training_loss
from qlora_nb.activations import ledger
from qlora_nb.memory import CONTEXT, METHODS, Recipe, Shape, paged_bytes, read_shape, weight_parts
from qlora_nb.models import load_base, pick_compute_dtype, pick_device
from qlora_nb.prepare import prepare

RESULTS = Path(__file__).parent / "results" / "memory_gpu.json"
OPTIMIZERS = {"adamw_torch": torch.optim.AdamW, "adamw_8bit": bnb.optim.AdamW8bit,
              "paged_adamw_32bit": bnb.optim.PagedAdamW,
              "paged_adamw_8bit": bnb.optim.PagedAdamW8bit}
SIZES = [(1, 512), (1, 2048), (4, 512), (4, 1024), (8, 1024)]  # batch, sequence
GROUPS = [  # what a model is loaded and adapted with; all sizes are run on each
    dict(lean=True), dict(lean=True, dropout=0.05, padding=True), dict(),
    dict(optimizer="adamw_torch"), dict(optimizer="paged_adamw_8bit", rank=64),
    dict(gradient_checkpointing=False), dict(dropout=0.05, padding=True), dict(rank=64),
    dict(targets=("query_key_value",)), dict(double_quantization=False),
    dict(attention="eager"), METHODS["lora"], METHODS["lora8"], METHODS["full"],
]
TINY = Shape(2, 128, 2, 1000, context=2048)


def save_random(shape: Shape, folder: str, device: torch.device) -> None:
    "A checkpoint of the shape with random 16-bit weights, and the buffers of files of 2023."
    config = GPTNeoXConfig(
        vocab_size=shape.vocab, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, intermediate_size=shape.intermediate,
        max_position_embeddings=shape.context, use_parallel_residual=shape.parallel,
        rotary_pct=shape.rotary, tie_word_embeddings=shape.tied,
        attention_dropout=0.0, hidden_dropout=0.0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        with device:
            model = GPTNeoXForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    state, length = model.state_dict(), shape.context
    for layer in range(shape.layers):
        start = f"gpt_neox.layers.{layer}.attention."
        state[start + "bias"] = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
        state[start + "masked_bias"] = torch.tensor(-1e9).half()  # -inf: float16 has no -1e9
    model.save_pretrained(folder, state_dict=state)


def load(folder: str, recipe: Recipe, dtype: torch.dtype, device: torch.device):
    "The model of a recipe, ready to train."
    if recipe.quantization == "int8":
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, device_map={"": device},
            quantization_config=BitsAndBytesConfig(load_in_8bit=True))
    else:
        model = load_base(folder, recipe.quantization, recipe.double_quantization, dtype, device)
    model.config.use_cache = False
    model.set_attn_implementation(recipe.attention)
    model = prepare(model, recipe.rank, 16, recipe.dropout, ",".join(recipe.targets) or "all-linear",
                    dtype=dtype, narrow=recipe.lean,
                    gradient_checkpointing=recipe.gradient_checkpointing)
    return model.train()


def step(model, optimizer, shape: Shape, recipe: Recipe, dtype: torch.dtype) -> None:
    "One optimizer step over two forward passes, as accumulation has it."
    device = model.device
    for _ in range(2):
        ids = torch.randint(0, shape.vocab, (recipe.batch, recipe.sequence), device=device)
        mask = torch.ones_like(ids)
        if recipe.padding:
            mask[0, recipe.sequence // 2:] = 0
        with torch.autocast(device.type, dtype=dtype):
            batch = {"input_ids": ids, "attention_mask": mask, "labels": ids}
            loss = training_loss(model, batch) if recipe.lean else model(**batch).loss
        loss.backward()
        del loss
    optimizer.step()
    optimizer.zero_grad()


def measure(folder: str, shape: Shape, group: dict, sizes: list, device: torch.device) -> list:
    "One row for each size: predicted and measured bytes, at rest and at the peak."
    dtype = pick_compute_dtype("auto", device) if device.type == "cuda" else torch.bfloat16
    recipe, rows = replace(Recipe(device=device.type), **group), []
    model = load(folder, recipe, dtype, device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = OPTIMIZERS[recipe.optimizer](trained, lr=1e-5)
    for batch, sequence in sizes:
        now = replace(recipe, batch=batch, sequence=sequence)
        entry = ledger(shape, now)
        rest = sum(entry.parts[name] for name in [*weight_parts(shape, now), "adapter",
                                                  "optimizer states"]) - paged_bytes(shape, now)
        row = {"recipe": asdict(now), "moment": entry.moment, "predicted_rest": rest,
               "predicted_peak": entry.counted}
        try:
            step(model, optimizer, shape, now, dtype)  # states exist after the first step
            if device.type == "cuda":
                torch.cuda.synchronize()
                row["rest"] = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
            step(model, optimizer, shape, now, dtype)
            if device.type == "cuda":
                torch.cuda.synchronize()
                row["peak"] = torch.cuda.max_memory_allocated()
                row["off_by"] = row["predicted_peak"] / row["peak"] - 1
        except torch.cuda.OutOfMemoryError:
            optimizer.zero_grad()
        rows.append(row)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def said(group: dict, row: dict) -> str:
    "A row in one line."
    name = ", ".join(f"{key} {value}" for key, value in group.items()) or "QLoRA"
    size = f"{row['recipe']['batch']} x {row['recipe']['sequence']}"
    peak = row.get("peak")
    found = f"measured {peak / 1e9:.3f}, off by {row['off_by']:+.2%}" if peak else "not measured"
    return f"{name}; {size}: predicted {row['predicted_peak'] / 1e9:.3f} GB, {found}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="rinna/japanese-gpt-neox-3.6b")
    parser.add_argument("--checkpoint", help="a folder with a checkpoint of the model's shape")
    parser.add_argument("--dry", action="store_true", help="a tiny shape on the CPU; no result")
    wanted = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        shape = TINY if wanted.dry else read_shape(wanted.model)
        device = pick_device("cpu" if wanted.dry else "cuda")
    except InputError as error:
        reason = "this benchmark needs an NVIDIA GPU that torch can see, and there is none"
        print(error if "unknown" in str(error) else reason, file=sys.stderr)
        return 2
    results = []
    with tempfile.TemporaryDirectory() as folder:
        if wanted.checkpoint:
            folder = wanted.checkpoint
        else:
            save_random(shape, folder, device)
        for group in GROUPS:
            sizes = [(1, 32), (2, 64)] if wanted.dry else SIZES
            try:
                rows = measure(folder, shape, group, sizes, device)
            except torch.cuda.OutOfMemoryError:
                print(f"{group} does not fit at all", flush=True)
                continue
            finally:
                gc.collect()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
            for row in rows:
                print(said(group, row), flush=True)
            results += rows
            if not wanted.dry:
                write_json(RESULTS, {
                    "machine": machine(), "versions": versions(), "model": wanted.model,
                    "weights": "random", "context_allowance": CONTEXT,
                    "memory": torch.cuda.get_device_properties(0).total_memory, "rows": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
