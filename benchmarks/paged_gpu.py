"""What does a paged optimizer cost on a GPU, and what does it make possible?

    python benchmarks/paged_gpu.py [--layers 12] [--rank 256] [--tokens 1024] [--rounds 3]

A GPT-NeoX of rinna 3.6b's width with random weights in bfloat16 and LoRA on all linear layers
trains with bitsandbytes' AdamW and PagedAdamW: first on the same gradients, whose results must be
equal in every bit; then under pressure. Pressure is real: managed memory lies outside of torch's
allocator, so that a limit on torch (set_per_process_memory_fraction) would not evict a page.
Instead plain memory is taken until a share of the optimizer's state has no room on the device.

What never happens here: managed memory is asked for only while twice as much is free on the
device and four times as much in the machine, and a quarter of the state always keeps its room.
Managed memory is given back when a process ends; so each measurement has a process of its own,
and they take turns. Writes benchmarks/results/paged_gpu.json, anew after each round. Without a GPU it exits with 2.
"""
import argparse
import json
import logging
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import psutil
import torch

from qlora_nb.core import InputError, machine, versions, write_json
from qlora_nb.paged import lora_sizes, paged_share

RESULTS = Path(__file__).parent / "results" / "paged_gpu.json"
PRESSURES = (0.0, 0.25, 0.5, 0.75)  # shares of the state that have no room
WARM, TIMED, CHUNK, SPARE = 2, 5, 64 * 2**20, 256 * 2**20
LIMIT = 300  # seconds that one measurement may take


def sides(layers: int) -> list:
    "(in, out) of every linear layer, of rinna 3.6b's width."
    return layers * [(2816, 8448), (2816, 2816), (2816, 11264), (11264, 2816)]


def state_bytes(layers: int, rank: int) -> int:
    "What AdamW keeps in float32."
    return 8 * sum(lora_sizes(sides(layers), rank))


def check(state: int, largest: int, free: int, host: int) -> None:
    "Raise `InputError` unless the state may be asked for as managed memory; all in bytes."
    if 2 * state > free:
        raise InputError(f"the state takes {state / 1e9:.1f} GB and {free / 1e9:.1f} GB are free "
                         "on the GPU; expected twice the state: give a lower --rank or --layers")
    if 4 * state > host:
        raise InputError(f"the state takes {state / 1e9:.1f} GB and {host / 1e9:.1f} GB are free "
                         "in the machine; expected four times the state: give a lower --rank")
    if (1 - max(PRESSURES)) * state < 4 * largest:
        raise InputError("one tensor is too large a part of the state; give more --layers")


def ballast_bytes(free: int, state: int, pressure: float, managed: bool) -> int:
    "Plain memory to take, so that `pressure` of the state has no room; all in bytes."
    # Managed state is on the device already and may be pushed out; plain state comes afterwards.
    room = free if managed else free - state
    return max(0, int(room - SPARE + pressure * state) // CHUNK * CHUNK)


def take(nbytes: int) -> list:
    "Plain device memory, in chunks, as much as there is up to `nbytes`."
    held = []
    try:
        while len(held) * CHUNK < nbytes:
            held.append(torch.empty(CHUNK, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError:
        pass
    return held


def build(layers: int, rank: int, device: str, hidden: int = 2816, heads: int = 22):
    "A random GPT-NeoX in bfloat16 with LoRA on all linear layers."
    from peft import LoraConfig, get_peft_model
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=32_000, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * hidden, use_parallel_residual=False, use_cache=False)
    old = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = GPTNeoXForCausalLM(config)
    finally:
        torch.set_default_dtype(old)
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    model = get_peft_model(model.requires_grad_(False), lora).train()
    return model, [p for p in model.parameters() if p.requires_grad]


def step(model, optimizer, ids) -> float:
    "Seconds of one training step."
    def wait():
        if ids.is_cuda:
            torch.cuda.synchronize()

    wait()
    start = time.perf_counter()
    with torch.autocast(ids.device.type, torch.bfloat16):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    wait()
    return time.perf_counter() - start


def tokens(count: int, device: str) -> torch.Tensor:
    "One row of random tokens."
    rng = torch.Generator().manual_seed(1)
    return torch.randint(4, 32_000, (1, count), generator=rng).to(device)


def same_numbers(layers: int, rank: int, count: int, device: str = "cuda", **size) -> dict:
    "Both optimizers on copies of the same gradients, five steps: are all bits equal?"
    import bitsandbytes as bnb

    model, trained = build(layers, rank, device, **size)
    with torch.autocast(device, torch.bfloat16):
        model(input_ids=tokens(count, device), labels=tokens(count, device)).loss.backward()
    found = {}
    for name in ("AdamW", "PagedAdamW"):
        params = [torch.nn.Parameter(p.detach().clone()) for p in trained]
        optimizer = getattr(bnb.optim, name)(params, lr=1e-3)
        for i in range(5):
            for p, q in zip(params, trained):
                p.grad = q.grad / (i + 1)
            optimizer.step()
        states = [optimizer.state[p] for p in params]
        paged = [getattr(s["state1"], "is_paged", False) for s in states]
        found[name] = params, paged
    equal = all(torch.equal(a.view(torch.int32), b.view(torch.int32))
                for a, b in zip(found["AdamW"][0], found["PagedAdamW"][0]))
    sizes = [p.numel() for p in trained]
    share = sum(n for n, paged in zip(sizes, found["PagedAdamW"][1]) if paged) / sum(sizes)
    return {"equal": equal, "paged_share": share, "paged_share_by_rule": paged_share(sizes)}


def measure(name: str, pressure: float | None, layers: int, rank: int, count: int) -> dict:
    "Steps of one optimizer, under pressure unless it is None, in a process of its own."
    import bitsandbytes as bnb

    model, trained = build(layers, rank, "cuda")
    ids, state = tokens(count, "cuda"), state_bytes(layers, rank)
    assert state == 8 * sum(p.numel() for p in trained)
    largest = 4 * max(p.numel() for p in trained)
    managed = name == "PagedAdamW"
    step(model, torch.optim.SGD(trained, lr=0.0), ids)  # takes what activations need
    optimizer = getattr(bnb.optim, name)(trained, lr=1e-4)
    if managed:
        check(state, largest, torch.cuda.mem_get_info()[0], psutil.virtual_memory().available)
        step(model, optimizer, ids)  # the state exists from here on, and fits
    held = []
    if pressure is not None:
        held = take(ballast_bytes(torch.cuda.mem_get_info()[0], state, pressure, managed))
    over = torch.cuda.memory_reserved() + managed * state - torch.cuda.mem_get_info()[1]
    try:
        seconds = [step(model, optimizer, ids) for _ in range(WARM + TIMED)][WARM:]
    except torch.OutOfMemoryError:
        seconds = []
    return {"optimizer": name, "pressure": pressure, "fits": bool(seconds), "seconds": seconds,
            "state_bytes": state, "ballast_bytes": CHUNK * len(held), "bytes_beyond": max(0, over)}


def in_process(arguments: list, **values) -> dict:
    "Run this script for one measurement; what it prints last is the result."
    command = [sys.executable, __file__, *arguments, "--one", json.dumps(values)]
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {**values, "fits": False, "seconds": [], "failed": f"no end after {LIMIT} s"}
    if done.returncode == 2:
        raise InputError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        return {**values, "fits": False, "seconds": [], "failed": done.stderr[-500:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def summary(runs: list) -> list:
    "Medians over the rounds, and times against AdamW without pressure in the same round."
    plain = [r["seconds"] for r in runs if r["optimizer"] == "AdamW" and r["pressure"] is None]
    rows = []
    for name, pressure in dict.fromkeys((r["optimizer"], r["pressure"]) for r in runs):
        own = [r for r in runs if (r["optimizer"], r["pressure"]) == (name, pressure)]
        row = {"optimizer": name, "pressure": pressure, "fits": all(r["fits"] for r in own)}
        if row["fits"] and all(plain):
            medians = [statistics.median(r["seconds"]) for r in own]
            row["seconds"] = statistics.median(medians)
            row["against_adamw"] = statistics.median(
                median / statistics.median(base) for median, base in zip(medians, plain))
        rows.append(row)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rank", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help="make one measurement and print it (used by the script)")
    wanted = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if not torch.cuda.is_available():
        print("paged_gpu.py needs an NVIDIA GPU that torch can see, and there is none; "
              "run it on a machine that has one", file=sys.stderr)
        return 2
    size = wanted.layers, wanted.rank, wanted.tokens
    try:
        if wanted.one:
            one = json.loads(wanted.one)
            print(json.dumps(measure(one["optimizer"], one["pressure"], *size)
                             if "optimizer" in one else same_numbers(*size)))
            return 0
        check(state_bytes(*size[:2]), 4 * max(lora_sizes(sides(size[0]), size[1])),
              torch.cuda.mem_get_info()[0], psutil.virtual_memory().available)
        arguments = [f"--{name}={value}" for name, value in zip(("layers", "rank", "tokens"), size)]
        equal = in_process(arguments)
        print("same numbers", equal, flush=True)
        ways = [("AdamW", None), ("AdamW", 0.5), ("AdamW", 0.75),
                *(("PagedAdamW", p) for p in (None, *PRESSURES))]
        runs = []
        for _ in range(wanted.rounds):
            for name, pressure in ways:
                runs.append(in_process(arguments, optimizer=name, pressure=pressure))
                print({k: v for k, v in runs[-1].items() if k != "seconds"}, flush=True)
            write_json(RESULTS, {
                "machine": machine(), "versions": versions(), "layers": size[0], "rank": size[1],
                "tokens": size[2], "state_bytes": state_bytes(*size[:2]), "same_numbers": equal,
                "summary": summary(runs), "runs": runs})
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for row in summary(runs):
        print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
