"""Which 4-bit format errs least at equal total bits, and which matrices deserve 16?

    python benchmarks/formats.py

Formats: a codebook with a scale of 16 bits for each block, or E2M1 with the small scales of MXFP4
and NVFP4. AF4 makes the absolute error least in blocks, BOF4 the squared one, SF4 takes quantiles
of Student's t; all are fitted to what their papers assume and asked about normal weights, Student's
weights, the matrices of the micro model and its loss. Then each matrix of it is quantized alone.
Writes benchmarks/results/formats.json; a part that stands there already is not measured again.
"""
import json
import statistics
from pathlib import Path

import bitsandbytes.functional as bnb
import torch
from codebooks import fresh_rows, row_losses
from common import seconds
from scipy import stats

from qlora_nb.blockwise import quantize
from qlora_nb.core import machine, versions, write_json
from qlora_nb.micro import micro_folder
from qlora_nb.minifloat import E2M1, E4M3, decode, encode, values
from qlora_nb.models import load_base
from qlora_nb.nf4 import NF4, codebook, nearest
from qlora_nb.qlora import linear_layers

RESULTS = Path(__file__).parent / "results" / "formats.json"
COUNT = 2**20
BLOCKS = {4.25: 64, 4.5: 32}  # bits in all: block, with scales of 16 bits
LARGE = (64, 256, 1024, 4096)


def draw(kind: str, seed: int) -> torch.Tensor:
    "Normal weights, or Student's with 5 degrees of freedom."
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(COUNT, generator=generator)
    if kind == "student":
        x /= (torch.randn(5, COUNT, generator=generator).square().sum(0) / 5).sqrt()
    return x


def scales(rows: torch.Tensor, signed: bool = False) -> torch.Tensor:
    "The largest of each row, by size; `signed` keeps its sign, so that 1 is always met and -1 never."
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return (largest if signed else largest.abs()).bfloat16().float()


def fitted(rows: torch.Tensor, pins: tuple, signed: bool, absolute: bool, steps: int = 400) -> torch.Tensor:
    """Lloyd's iteration for the error of the weights themselves, some levels held where they are.

    `absolute`: medians of the scaled values (AF4). Else means, weighted by the square of the scale,
    which make the squared error of what comes back least (BOF4).
    """
    scale = scales(rows, signed)
    x, order = (rows / scale).flatten().double().sort()
    weight = (scale.double().square().expand_as(rows).flatten()[order] if not absolute
              else torch.ones_like(x))
    mass, moment = (torch.cat([x.new_zeros(1), y.cumsum(0)]) for y in (weight, weight * x))
    levels = x[((torch.arange(16) + .5) / 16 * len(x)).long()]
    for _ in range(steps):
        for pin in pins:
            levels[(levels - pin).abs().argmin()] = pin
        edge = torch.searchsorted(x, (levels[1:] + levels[:-1]) / 2)
        edge = torch.cat([edge.new_zeros(1), edge, edge.new_full((1,), len(x))])
        if absolute:
            half = torch.searchsorted(mass, (mass[edge[1:]] + mass[edge[:-1]]) / 2)
            levels = x[half.clamp(1, len(x)) - 1].clone()
        else:
            held = mass[edge].diff()
            levels = torch.where(held > 0, moment[edge].diff() / held, levels)
    for pin in pins:
        levels[(levels - pin).abs().argmin()] = pin
    return levels.float()


def student_float() -> torch.Tensor:
    "NF4's recipe with the quantiles of Student's t, as SF4."
    end = 1 - (1 / 32 + 1 / 30) / 2
    up, down = (stats.t.ppf(torch.linspace(end, .5, n).numpy()[:-1], 5) for n in (9, 8))
    levels = torch.tensor([*-down, 0., *up]).sort().values
    return (levels / levels.abs().max()).float()


def through(rows: torch.Tensor, levels: torch.Tensor, signed: bool = False) -> torch.Tensor:
    "Rows that went through a codebook with one scale each, and back."
    scale = scales(rows, signed)
    return levels[nearest(rows / scale, levels)] * scale


def mxfp4(x: torch.Tensor) -> torch.Tensor:
    "OCP MX: blocks of 32, scales are powers of two."
    rows = x.view(-1, 32)
    scale = 2.0 ** (rows.abs().amax(1, keepdim=True).log2().floor() - 2)
    return decode(encode(rows / scale, E2M1), E2M1).float() * scale


def nvfp4(x: torch.Tensor) -> torch.Tensor:
    "NVFP4: blocks of 16, scales in E4M3 under one of float32."
    rows = x.view(-1, 16)
    whole = rows.abs().max() / (448 * 6)
    scale = decode(encode(rows.abs().amax(1, keepdim=True) / 6 / whole, E4M3), E4M3).float() * whole
    return decode(encode(rows / scale, E2M1), E2M1).float() * scale


def errors(back: torch.Tensor, x: torch.Tensor) -> dict:
    "Mean squared and mean absolute error, against mean square and its root."
    apart, size = (back.flatten() - x).double(), x.double().square().mean()
    return {"squared": round(float(apart.square().mean() / size), 6),
            "absolute": round(float(apart.abs().mean() / size.sqrt()), 6)}


def formats(bits: float) -> dict:
    "Every format of so many bits in all: name -> function of flat weights, which go through it and back."
    block, normal = BLOCKS[bits], draw("normal", 1).view(-1, BLOCKS[bits])
    books = {"NF4": NF4, "FP4": codebook("fp4"), "E2M1": values(E2M1).float().unique() / 6,
             "SF4": student_float(), "AF4": fitted(normal, (-1, 0, 1), False, True),
             "BOF4": fitted(normal, (-1, 0, 1), False, False)}
    signed = fitted(normal, (0, 1), True, False)
    found: dict = {name: lambda x, levels=levels: through(x.view(-1, block), levels)
                   for name, levels in books.items()}
    found["BOF4-S"] = lambda x: through(x.view(-1, block), signed, True)
    return found | ({"MXFP4": mxfp4} if bits == 4.25 else {"NVFP4": nvfp4})


def compared(weights: dict) -> list[dict]:
    "The errors of every format on all weights, in its group of total bits."
    return [{"bits": bits, "format": name, "weights": kind, **errors(there_and_back(x), x)}
            for bits in BLOCKS for name, there_and_back in formats(bits).items()
            for kind, x in weights.items()]


@torch.no_grad()
def on_model(model) -> list[dict]:
    "What every format adds to the loss of the micro model, and to NF4's, with its standard error."
    rows, layers = fresh_rows(), linear_layers(model)
    wide = {name: layer.weight.clone() for name, layer in layers.items()}
    plain, found = row_losses(model, rows), []
    for bits in BLOCKS:
        more = {}
        for name, there_and_back in formats(bits).items():
            for at, layer in layers.items():
                layer.weight.copy_(there_and_back(wide[at].flatten()).view_as(wide[at]))
            more[name] = row_losses(model, rows) - plain
        for name, each in more.items():
            apart = each - more["NF4"]
            found.append({"bits": bits, "format": name, "more": round(float(each.mean()), 6),
                          "from_nf4": round(float(apart.mean()), 6),
                          "standard_error": round(float(apart.std() / len(apart) ** .5), 6)})
    for name, layer in layers.items():
        layer.weight.copy_(wide[name])
    return found


def by_block() -> list[dict]:
    "NF4 and AF4 on normal weights in larger blocks, AF4 fitted to each."
    x, found = draw("normal", 2), []
    for block in LARGE:
        af4 = fitted(draw("normal", 1).view(-1, block), (-1, 0, 1), False, True)
        found.append({"block": block, "NF4": errors(through(x.view(-1, block), NF4), x),
                      "AF4": errors(through(x.view(-1, block), af4), x)})
    return found


@torch.no_grad()
def sensitivity(model) -> dict:
    "What each matrix costs in loss when it alone is NF4, and what is left if the dearest stay wide."
    rows, layers = fresh_rows(), linear_layers(model)
    plain = row_losses(model, rows).mean()
    wide = {name: layer.weight.clone() for name, layer in layers.items()}
    narrow = {name: quantize(weight, "nf4", 64).dequantize() for name, weight in wide.items()}

    def loss(chosen) -> float:
        for name, layer in layers.items():
            layer.weight.copy_(narrow[name] if name in chosen else wide[name])
        return float(row_losses(model, rows).mean() - plain)

    alone = {name: round(loss({name}), 6) for name in layers}
    dearest = sorted(alone, key=lambda name: -alone[name])
    count = {name: weight.numel() for name, weight in wide.items()}

    def bits(k: int) -> float:
        "Per weight, if the k dearest matrices keep 16."
        held = sum((16 if name in dearest[:k] else 4.127) * count[name] for name in layers)
        return round(held / sum(count.values()), 3)

    kept = [{"wide": k, "bits": bits(k), "more": round(loss(set(dearest[k:])), 6)}
            for k in (0, 1, 2, 4, 8)]
    return {"alone": alone, "kept": kept}


def time_of_double(rounds: int = 15) -> dict:
    "Seconds that bitsandbytes takes for a matrix of rinna's, with one scale of 32 bits and with two of 8."
    weight, device = torch.randn(2816, 8448), torch.device("cpu")
    states = {double: bnb.quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
              for double in (False, True)}
    times: dict = {False: [], True: []}
    for _ in range(rounds):
        for double, state in states.items():
            times[double].append(seconds(lambda: bnb.dequantize_4bit(*state), device, "processor"))
    ratios = [two / one for one, two in zip(times[False], times[True])]
    return {"single_ms": round(1000 * statistics.median(times[False]), 3),
            "double_ms": round(1000 * statistics.median(times[True]), 3),
            "ratio": round(statistics.median(ratios), 3)}


def main():
    model = load_base(micro_folder() / "model", "none").eval()
    micro = torch.cat([layer.weight.detach().flatten() for layer in linear_layers(model).values()])
    weights = {"normal": draw("normal", 0), "student": draw("student", 0), "micro": micro.float()}
    parts = {"formats": lambda: compared(weights), "on the model": lambda: on_model(model),
             "blocks": by_block, "double quantization": time_of_double,
             "sensitivity": lambda: sensitivity(model)}
    old = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    old = old if old.get("versions") == versions() else {}
    write_json(RESULTS, {"machine": machine(), "versions": versions()} | {
        name: old[name] if name in old else measure() for name, measure in parts.items()})


if __name__ == "__main__":
    main()
