"""How fast are 4-bit quantizing and dequantizing, against bitsandbytes, torchao and a plain copy?

    python benchmarks/quantize.py [--rounds 9] [--device cuda] [--quick]
    python benchmarks/quantize.py --threads 1 --clock processor     on a machine that is busy

All contestants take turns within one process, once a round, so that a busy machine slows all of
them alike; reported are the medians, the minima, and ratios of medians and of minima.
Our eager and our compiled code, bitsandbytes and, where it is installed, torchao's NF4 work on
the same tensors; every result of ours is compared with bitsandbytes' to the bit before it is timed.
Writes benchmarks/results/quantize_cpu.json, or quantize_<gpu>.json.
"""
import logging
import statistics
from pathlib import Path

import torch

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

import bitsandbytes.functional as bnb

from common import seconds, timing_parser
from qlora_nb.bits import same_bits
from qlora_nb.blockwise import quantize
from qlora_nb.core import machine, place, versions, write_json
from qlora_nb.double_quant import double_quantize
from qlora_nb.kernels import can_compile

try:
    from torchao.quantization import to_nf4
except ImportError:
    to_nf4 = None

RESULTS = Path(__file__).parent / "results"
SHAPES = [(4096, 4096), (11008, 4096)]
DTYPES = [torch.float32, torch.bfloat16]


def contestants(x: torch.Tensor) -> dict:
    "Task -> who -> a function to time; the results are checked first."
    state = {"compress_statistics": x.is_cuda, "quant_type": "nf4"}
    packed, theirs = bnb.quantize_4bit(x, **state)
    ours, out, source = quantize(x, compiled=False), torch.empty_like(x), x.clone()
    if x.is_cuda:
        ours = double_quantize(ours)
    assert same_bits(ours.packed[:, None], packed)
    if can_compile(x.device.type):
        assert same_bits(quantize(x, compiled=True).packed, ours.packed)
        assert same_bits(ours.dequantize(compiled=True), ours.dequantize(compiled=False))
    if not x.is_cuda:  # on a GPU the second-level codes may differ by one
        assert same_bits(ours.dequantize(), bnb.dequantize_4bit(packed, theirs))
    tasks = {
        "quantize": {"bitsandbytes": lambda: bnb.quantize_4bit(x, **state),
                     "ours, eager": lambda: quantize(x, compiled=False)},
        "dequantize, fresh buffer": {
            "copy": lambda: source.clone(),
            "bitsandbytes": lambda: bnb.dequantize_4bit(packed, theirs),
            "ours, eager": lambda: ours.dequantize(compiled=False)},
        "dequantize, existing buffer": {
            "copy": lambda: out.copy_(source),
            "ours, eager": lambda: ours.dequantize(out=out, compiled=False)},
    }
    if can_compile(x.device.type):
        tasks["quantize"]["ours, compiled"] = lambda: quantize(x, compiled=True)
        tasks["dequantize, fresh buffer"]["ours, compiled"] = lambda: ours.dequantize(compiled=True)
        tasks["dequantize, existing buffer"]["ours, compiled"] = (
            lambda: ours.dequantize(out=out, compiled=True))
    if to_nf4 is not None:
        nf4 = to_nf4(x, block_size=64)
        tasks["quantize"]["torchao"] = lambda: to_nf4(x, block_size=64)
        tasks["dequantize, fresh buffer"]["torchao"] = nf4.get_original_weight
    return tasks


def measure(tasks: dict, device: torch.device, rounds: int, clock: str) -> dict:
    "Task -> who -> median and minimum in milliseconds, with the ratio to bitsandbytes and copy."
    every = [(task, who, call) for task, group in tasks.items() for who, call in group.items()]
    times = {(task, who): [] for task, who, _ in every}
    for number in range(rounds + 1):
        for task, who, call in every:
            taken = seconds(call, device, clock)
            if number:  # the first round warms up
                times[task, who].append(taken * 1000)
    found = {task: {} for task in tasks}
    for (task, who), values in times.items():
        found[task][who] = {"median_ms": round(statistics.median(values), 3),
                            "minimum_ms": round(min(values), 3)}
    for group in found.values():
        for who, row in group.items():
            for rival in {"bitsandbytes", "copy"} & group.keys() - {who}:
                for kind in ("median", "minimum"):
                    ratio = group[rival][f"{kind}_ms"] / row[f"{kind}_ms"]
                    row[f"speed_against_{rival}_{kind}"] = round(ratio, 3)
    return found


def main() -> None:
    options = timing_parser(__doc__.splitlines()[0], 9, "a small tensor, nothing is written").parse_args()
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    shapes = [(1024, 1024)] if options.quick else SHAPES
    rows = []
    for shape in shapes:
        for dtype in DTYPES:
            torch.manual_seed(0)
            x = (torch.randn(shape) * 0.02).to(device, dtype)
            result = measure(contestants(x), device, options.rounds, options.clock)
            rows.append({"shape": shape, "dtype": str(dtype).removeprefix("torch."), **result})
            print(shape, dtype)
            for task, group in result.items():
                for who, row in group.items():
                    print(f"  {task:28}{who:16}", row)
            if not options.quick:  # after each row: who is interrupted keeps the others
                write_json(RESULTS / f"quantize_{place(device)}.json", {
                    "question": __doc__.splitlines()[0], "machine": machine(),
                    "versions": versions(["torch", "bitsandbytes", "torchao"]),
                    "rounds": options.rounds, "clock": options.clock, "block_size": 64,
                    "codebook": "nf4", "rows": rows})


if __name__ == "__main__":
    main()
