"""Tokens a second of real generation, in 4 bits against 16 and 32: does 4 bits cost time?

    python benchmarks/generation.py

One layer of the width of rinna/japanese-gpt-neox-3.6b with random weights, and its head, generate
on this processor's one thread. The kinds take turns, and the best of each kind's runs counts.
Writes benchmarks/results/generation.json.
"""
import argparse
import tempfile
import time
from pathlib import Path

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from qlora_nb.bnb_layers import guard_cpu_layers
from qlora_nb.core import machine, versions, write_json
from qlora_nb.loading import quantization_config

RESULTS = Path(__file__).parent / "results" / "generation.json"
BATCHES, PROMPT, TOKENS = (1, 4, 16, 64), 2, 4
SHAPE = dict(hidden_size=2816, intermediate_size=11264, num_attention_heads=22, num_hidden_layers=1,
             vocab_size=8192, max_position_embeddings=64)


def load(folder: str, kind: str):
    "The same weights in NF4 with arithmetic in float32, or in the dtype that is named."
    more = (dict(quantization_config=quantization_config("nf4", True, torch.float32), device_map="cpu",
                 dtype=torch.float32)
            if kind == "nf4" else dict(dtype=getattr(torch, kind)))
    model = GPTNeoXForCausalLM.from_pretrained(folder, **more).eval()
    guard_cpu_layers(model)  # as qlora-nb loads it
    return model


def seconds(model, batch: int) -> float:
    "For TOKENS tokens to each of `batch` prompts."
    ids = torch.arange(batch * PROMPT).view(batch, PROMPT) % SHAPE["vocab_size"]
    started = time.perf_counter()
    found = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                           min_new_tokens=TOKENS, max_new_tokens=TOKENS, pad_token_id=0)
    assert found.shape == (batch, PROMPT + TOKENS)
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)).save_pretrained(folder)
        models = {kind: load(folder, kind) for kind in ("nf4", "bfloat16", "float32")}
    taken = {kind: {batch: [] for batch in BATCHES} for kind in models}
    for _ in range(rounds):
        for batch in BATCHES:
            for kind, model in models.items():
                taken[kind][batch].append(seconds(model, batch))
    speed = {kind: {str(batch): batch * TOKENS / min(times) for batch, times in runs.items()}
             for kind, runs in taken.items()}
    write_json(RESULTS, {"question": __doc__.splitlines()[0], "machine": machine(),
                         "versions": versions(), "shape": SHAPE, "prompt": PROMPT, "tokens": TOKENS,
                         "rounds": rounds, "tokens_per_second": speed})
    print(speed)


if __name__ == "__main__":
    main()
