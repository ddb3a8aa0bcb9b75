"""Does a model mind which 16 values its weights may have? On the micro model.

    python benchmarks/codebooks.py

The matrices of the layers go through each codebook and back, in blocks of 64 and with one scale
for a whole matrix; all else stays as it is. Then the model reads documents about its own world
that it has never read. All read the same rows, so losses are compared row by row.
Writes benchmarks/results/codebooks.json.
"""
import random
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from qlora_nb.blockwise import quantize
from qlora_nb.core import machine, versions, write_json
from qlora_nb.micro import WRITERS, micro_folder, token_rows, world
from qlora_nb.models import load_base
from qlora_nb.nf4 import CODEBOOKS
from qlora_nb.qlora import linear_layers
from qlora_nb.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results" / "codebooks.json"
DOCUMENTS = 1000
BLOCKS = {"64": 64, "one a matrix": 2**18}  # the largest matrix has 147,456 elements


def fresh_rows() -> torch.Tensor:
    "Token ids, (rows, 128), of documents about the micro model's world that it has not read."
    rng, known = random.Random("fresh documents"), world()
    drawn = rng.choices(list(WRITERS), weights=WRITERS.values(), k=DOCUMENTS)
    tokenizer = load_tokenizer(micro_folder() / "model")
    return token_rows([writer(rng, known) for writer in drawn], tokenizer)


@torch.no_grad()
def row_losses(model, rows: torch.Tensor) -> torch.Tensor:
    "Nats per token of each row."
    losses = []
    for part in rows.split(32):
        logits = model(part).logits[:, :-1].transpose(1, 2)
        losses.append(cross_entropy(logits, part[:, 1:], reduction="none").mean(1))
    return torch.cat(losses).double()


def rounded(losses: torch.Tensor) -> list[float]:
    return [round(loss, 6) for loss in losses.tolist()]


@torch.no_grad()
def main():
    rows = fresh_rows()
    model = load_base(micro_folder() / "model", "none").eval()
    plain = row_losses(model, rows)
    layers = linear_layers(model).values()
    weights = [layer.weight.clone() for layer in layers]
    found = []
    for block, size in BLOCKS.items():
        for name in CODEBOOKS:
            for layer, weight in zip(layers, weights):
                layer.weight.copy_(quantize(weight, name, size).dequantize())
            losses = row_losses(model, rows)
            found.append({"codebook": name, "block": block, "more": rounded(losses - plain)})
            print(name, block, float((losses - plain).mean()), flush=True)
    write_json(RESULTS, {"machine": machine(), "versions": versions(), "documents": DOCUMENTS,
                         "plain": rounded(plain), "runs": found})


if __name__ == "__main__":
    main()
