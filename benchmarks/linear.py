"""What does a frozen 4-bit linear layer cost, forward and backward, and a training step with it?

    python benchmarks/linear.py [--rounds 7] [--device cuda] [--quick]
    python benchmarks/linear.py --threads 1 --clock processor     on a machine that is busy

Our layer (eager and, for large weights, compiled), bitsandbytes' and unquantized ones take turns
within one process, once a round, so that a busy machine slows all of them alike; a ratio is the
median of the rounds' ratios. The 4-bit layers compute in float32 on a CPU, as the micro job does,
and in bfloat16 on a GPU; the unquantized ones are a linear of that dtype and one of bfloat16.
Outputs and gradients of ours are compared with bitsandbytes' before they are timed. The training
step is the micro model's: ours with LoRALinear, bitsandbytes with peft, float32 with peft.
Writes benchmarks/results/linear_cpu.json, or linear_<gpu>.json.
"""
import logging
import statistics
from pathlib import Path

import torch

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

from bitsandbytes.nn import Linear4bit as TheirLinear4bit
from bitsandbytes.nn import Params4bit

from common import seconds, timing_parser
from qlora_nb.core import machine, place, versions, write_json
from qlora_nb.data import Collator
from qlora_nb.exam import load_data
from qlora_nb.kernels import CHUNK, can_compile
from qlora_nb.linear4bit import Linear4bit
from qlora_nb.lora import LoRALinear
from qlora_nb.models import fetch_model, load_base
from qlora_nb.options import FinetuneOptions
from qlora_nb.plan import make_plan
from qlora_nb.prepare import add_lora
from qlora_nb.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results"
# (in, out) of the linear layers of one block, and the tokens that pass on a CPU and on a GPU.
MODELS = {
    "micro": ([(192, 576), (192, 192), (192, 768), (768, 192)], 512, 4096),
    "rinna 3.6B": ([(2816, 8448), (2816, 2816), (2816, 11264), (11264, 2816)], 64, 2048),
}
OURS, THEIRS = "ours + LoRALinear", "bitsandbytes + peft"


def theirs(layer: torch.nn.Linear, dtype: torch.dtype) -> torch.nn.Module:
    "bitsandbytes' layer with the weight of `layer`."
    made = TheirLinear4bit(layer.in_features, layer.out_features, compute_dtype=dtype,
                           compress_statistics=True, quant_type="nf4")
    made.weight = Params4bit(layer.weight.data.clone(), requires_grad=False, quant_type="nf4",
                             compress_statistics=True)
    made.bias = torch.nn.Parameter(layer.bias.data.clone(), requires_grad=False)
    made.support_avx512bf16_for_cpu = False
    return made.to(layer.weight.device)


def round_trip(layer, x: torch.Tensor, compiled: bool = False):
    "Output and input gradient of one pass forward and back."
    if isinstance(layer, Linear4bit):
        layer.compiled = compiled
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(x.new_ones(1).expand_as(y))
    return y.detach(), x.grad


def layers(inputs: int, outputs: int, tokens: int, device: torch.device) -> dict:
    "Who -> a function to time; ours is compared with bitsandbytes first."
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    plain = torch.nn.Linear(inputs, outputs).to(device, dtype).requires_grad_(False)
    low = torch.nn.Linear(inputs, outputs).to(device, torch.bfloat16).requires_grad_(False)
    x = torch.randn(tokens, inputs, device=device, dtype=dtype)
    ours, bnb = Linear4bit.from_linear(plain, compute_dtype=dtype), theirs(plain, dtype)
    for mine, their in zip(round_trip(ours, x), round_trip(bnb, x)):
        error = (mine - their).norm() / their.norm()
        assert error < (1e-2 if device.type == "cuda" else 1e-5), error
    who = {"ours, eager": lambda: round_trip(ours, x), "bitsandbytes": lambda: round_trip(bnb, x),
           str(dtype).removeprefix("torch."): lambda: round_trip(plain, x),
           "bfloat16": lambda: round_trip(low, x.bfloat16())}
    if inputs * outputs >= CHUNK and can_compile(device.type):
        who["ours, compiled"] = lambda: round_trip(ours, x, compiled=True)
    return who


class Trainer:
    "The micro model with adapters on every linear layer of its blocks, and steps to take."

    def __init__(self, who: str, device: torch.device):
        self.plan = make_plan(FinetuneOptions())
        folder = fetch_model("micro")
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        model = load_base(folder, "nf4" if who == THEIRS else "none", compute_dtype=dtype,
                          device=device).requires_grad_(False)
        if who == OURS:
            torch.manual_seed(0)
            for name, layer in list(model.gpt_neox.layers.named_modules()):
                if isinstance(layer, torch.nn.Linear):
                    layer = LoRALinear(Linear4bit.from_linear(layer, compute_dtype=dtype),
                                       self.plan.rank, self.plan.alpha)
                    model.gpt_neox.layers.set_submodule(name, layer)
            self.model = model
        else:
            self.model = add_lora(model, self.plan.rank, self.plan.alpha)
        tokenizer = load_tokenizer(folder)
        rows, size = load_data(self.plan, tokenizer).train, self.plan.batch_size
        collate = Collator(tokenizer)
        self.batches = [{key: value.to(device) for key, value in collate(rows[i:i + size]).items()}
                        for i in range(0, 20 * size, size)]
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4)
        self.model.train()

    def steps(self, count: int) -> float:
        "Train; the last loss."
        for i in range(count):
            loss = self.model(**self.batches[i % len(self.batches)]).loss
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss.item()


def trainers(device: torch.device, count: int) -> dict:
    "Who -> a function to time; ours and bitsandbytes must have the same losses first."
    made = {who: Trainer(who, device) for who in (OURS, THEIRS, "unquantized + peft")}
    mine, their = made[OURS], made[THEIRS]
    assert [p.shape for p in mine.trained] == [p.shape for p in their.trained]
    with torch.no_grad():
        for one, other in zip(mine.trained, their.trained):
            one.copy_(other)
    losses = mine.steps(3), their.steps(3)
    assert abs(losses[0] - losses[1]) < (0.05 if device.type == "cuda" else 1e-4), losses
    return {who: lambda trainer=trainer: trainer.steps(count) for who, trainer in made.items()}


def measure(contestants: dict, device: torch.device, rounds: int, clock: str, base: str) -> dict:
    "Who -> median and minimum in milliseconds, and the median over rounds of the ratio to `base`."
    taken = {who: [] for who in contestants}
    for number in range(rounds + 1):
        for who, call in contestants.items():
            spent = seconds(call, device, clock)
            if number:  # the first round warms up
                taken[who].append(spent * 1000)
    ratios = {who: statistics.median(a / b for a, b in zip(times, taken[base]))
              for who, times in taken.items()}
    return {who: {"median_ms": round(statistics.median(times), 3),
                  "minimum_ms": round(min(times), 3), "against_bitsandbytes": round(ratios[who], 3)}
            for who, times in taken.items()}


def main() -> None:
    options = timing_parser(__doc__.splitlines()[0], 7, "the micro model; nothing is written").parse_args()
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    # First, before weights a hundred times larger have shaped the process's memory.
    per_call = 5
    step = measure(trainers(device, per_call), device, 3 * options.rounds, options.clock, THEIRS)
    for row in step.values():
        for kind in ("median_ms", "minimum_ms"):
            row[kind] = round(row[kind] / per_call, 3)
    print("training step", *(f"\n  {who:22}{row}" for who, row in step.items()), flush=True)
    rows = []
    for model, (shapes, *tokens) in MODELS.items():
        if options.quick and model != "micro":
            continue
        for shape in shapes:
            count = tokens[device.type == "cuda"]
            rounds = options.rounds * (5 if model == "micro" else 1)  # they are short
            contestants = layers(*shape, count, device)
            result = measure(contestants, device, rounds, options.clock, "bitsandbytes")
            inputs, outputs = shape
            rows.append({"model": model, "in": inputs, "out": outputs, "tokens": count, **result})
            print(model, shape, *(f"\n  {who:18}{row}" for who, row in result.items()), flush=True)
            if not options.quick:  # after each row: who is interrupted keeps the others
                write_json(RESULTS / f"linear_{place(device)}.json", {
                    "question": __doc__.splitlines()[0], "machine": machine(),
                    "versions": versions(), "rounds": options.rounds, "clock": options.clock,
                    "codebook": "nf4", "block_size": 64, "double_quantization": True,
                    "layers": rows, "step": step})


if __name__ == "__main__":
    main()
