"""What does computing activations again cost in time, for full fine-tuning and for LoRA?

    python benchmarks/checkpointing_cpu.py [--rounds 9]

A GPT-NeoX with the micro model's sizes, twelve layers and random weights takes training steps:
without checkpointing, and with every layer checkpointed in both modes of torch. The ways take
turns within one process, so that a busy machine slows all of them alike; ratios are of the same
round. Writes benchmarks/results/checkpointing_cpu.json.
"""
import argparse
import logging
import statistics
import time
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import GPTNeoXForCausalLM

from qlora_nb.core import machine, versions, write_json
from qlora_nb.micro import micro_config

RESULTS = Path(__file__).parent / "results" / "checkpointing_cpu.json"
WAYS = {"plain": None, "not reentrant": False, "reentrant": True}  # -> use_reentrant
LAYERS, ROWS, TOKENS, STEPS = 12, 4, 128, 3


def build(method: str, reentrant: bool | None):
    "A model in training mode, its layers checkpointed unless `reentrant` is None."
    torch.manual_seed(0)
    config = micro_config()
    config.update({"num_hidden_layers": LAYERS, "use_cache": False})
    model = base = GPTNeoXForCausalLM(config)
    if method == "LoRA":
        lora = LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(base.requires_grad_(False), lora)
    if reentrant is not None:
        new = getattr(base, "activation_checkpointing_enable", base.gradient_checkpointing_enable)
        new({"use_reentrant": reentrant})
    return model.train()


def seconds(model, ids) -> float:
    "Of one forward and backward pass, the mean of a few."
    start = time.perf_counter()
    for _ in range(STEPS):
        model(input_ids=ids, labels=ids).loss.backward()
    return (time.perf_counter() - start) / STEPS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    wanted = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    ids = torch.randint(4, 2048, (ROWS, TOKENS), generator=torch.Generator().manual_seed(1))
    methods = {}
    for method in ("full", "LoRA"):
        models = {way: build(method, reentrant) for way, reentrant in WAYS.items()}
        rounds = [{way: seconds(model, ids) for way, model in models.items()}
                  for _ in range(wanted.rounds + 1)][1:]  # the first one warms up
        methods[method] = {}
        for way in WAYS:
            ratios = sorted(r[way] / r["plain"] for r in rounds)
            methods[method][way] = {"seconds": statistics.median(r[way] for r in rounds),
                                    "ratio": statistics.median(ratios), "ratios": ratios}
            print(method, way, f"{methods[method][way]['ratio']:.3f}", flush=True)
    write_json(RESULTS, {"machine": machine(), "versions": versions(), "layers": LAYERS,
                         "rows": ROWS, "tokens": TOKENS, "methods": methods})


if __name__ == "__main__":
    main()
