"""rinna 3.6b's true shape on a CPU: does it start in a minute, fit its ledger, and how fast is it?

    python benchmarks/rinna_cpu.py [--only PART ...] [--keep FOLDER]     or `make rinna`

The weights are random, which changes no byte and no second; the answers mean nothing. Parts:

    rate     operations a second of one product of matrices, which bounds all of the rest
    job      `qlora-nb finetune` on the whole model, at two lengths, with all the memory there is and
             in a control group of 6 or 8 GB (where one can be made): seconds to the first step,
             tokens a second, and the peak of anonymous memory next to the ledger's
    loading  the peak of anonymous memory while the weights are read
    kill     the same job, killed after a checkpoint and resumed: are the adapters' bytes equal?
    limit    the job in a control group of 3 GB, which is too little
    layer    one layer's four matrices, forward and backward: ours, bitsandbytes', and bare products
    tiles    the same with tiles of other sizes: 2^20 to 2^24 weights, and whole matrices
    step     a training step of a model of a third of the layers: ours in both dtypes, and
             transformers, peft and bitsandbytes with their documented defaults, in turns

It needs 8 GB of disk and 8 GB of memory, and half an hour on two cores. Each part is stored as soon
as it is done, in benchmarks/results/rinna_cpu.json.
"""
import argparse
import gc
import json
import logging
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

from common import copy_tokenizer
from linear import theirs
from qlora_nb import bnb_layers, linear4bit
from qlora_nb.activations import ledger
from qlora_nb.bnb_layers import use_tiles
from qlora_nb.core import machine, versions, write_json
from qlora_nb.exam import load_data
from qlora_nb.lean import training_loss
from qlora_nb.linear4bit import Linear4bit
from qlora_nb.memory import Shape, config_of, layer_matrices, read_shape
from qlora_nb.models import load_base
from qlora_nb.options import FinetuneOptions
from qlora_nb.plan import make_plan, recipe_of
from qlora_nb.prepare import prepare
from qlora_nb.processor import GROUPS, matmul_rate
from qlora_nb.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results" / "rinna_cpu.json"
RINNA = "rinna/japanese-gpt-neox-3.6b"
PARTS = ("rate", "job", "loading", "kill", "limit", "layer", "tiles", "step")
SHARD = 2 * 10**9  # bytes of one file


def write_checkpoint(folder: Path, shape: Shape, seed: int = 0) -> None:
    "A float16 checkpoint of the shape in parts, as the hub's are, with the micro model's tokenizer."
    config = AutoConfig.for_model(**config_of(shape), attention_dropout=0.0, dtype="float16")
    with torch.device("meta"):
        places = AutoModelForCausalLM.from_config(config).state_dict()
    generator, shard, size, weight_map = torch.Generator().manual_seed(seed), {}, 0, {}
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)

    def store() -> None:
        name = f"model-{len({*weight_map.values()}) + 1:05}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, name))

    for name, place in places.items():
        stored = name.replace("lm_head", "embed_out")
        if "norm" in name:
            values = torch.ones(place.shape) if name.endswith("weight") else torch.zeros(place.shape)
        else:
            values = torch.empty(place.shape).normal_(0, 0.02, generator=generator)
        if size + 2 * values.numel() > SHARD:
            store()
            shard, size = {}, 0
        shard[stored] = values.half()
        size += 2 * values.numel()
    store()
    write_json(folder / "model.safetensors.index.json",
               {"metadata": {"total_size": sum(2 * p.numel() for p in places.values())},
                "weight_map": weight_map})
    copy_tokenizer(folder)


def write_rows(path: Path, tokenizer, count: int, longest: int) -> None:
    "Questions with answers that fill rows of `longest` tokens nearly up."
    text = "空はどうして青いのですか。海はどうして広いのですか。"
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            question, answer = f"{number}番目の話をしてください。", ""
            while len(tokenizer(question + answer)["input_ids"]) < longest - 40:
                answer += text
            file.write(json.dumps({"instruction": question, "output": answer}) + "\n")


class Job:
    "A `qlora-nb finetune` on the checkpoint."

    def __init__(self, folder: Path, place: Path, tokens: int, steps: int, **options):
        rows, self.output = place / f"rows_{tokens}.jsonl", place / f"run_{tokens}_{os.urandom(3).hex()}"
        write_rows(rows, load_tokenizer(folder), 40, tokens)
        chosen = dict(model=folder, data=rows, device="cpu", steps=steps, batch_size=1,
                      accumulation=1, sequence_length=tokens, held_out=1, max_new_tokens=1,
                      eval_steps=0, output=self.output) | options
        self.arguments = [word for name, value in chosen.items()
                          for word in (f"--{name.replace('_', '-')}", str(value))]
        self.options = FinetuneOptions(**{k: str(v) if isinstance(v, Path) else v
                                          for k, v in chosen.items()})

    def start(self, *more: str, group: Path | None = None) -> subprocess.Popen:
        command = [Path(sys.executable).with_name("qlora-nb"), "finetune", *self.arguments, *more]
        enter = (lambda: (group / "cgroup.procs").write_text(str(os.getpid()))) if group else None
        return subprocess.Popen(command, preexec_fn=enter, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *more: str, group: Path | None = None) -> tuple[int, str]:
        "Exit status, and the last line that was said."
        process = self.start(*more, group=group)
        said = process.communicate()
        lines = [line for line in "".join(said[::-1]).splitlines() if line.strip()]
        return process.returncode, lines[-1] if lines else ""

    @property
    def record(self) -> dict:
        return json.loads((self.output / "run.json").read_text(encoding="utf-8"))

    @property
    def adapter(self) -> bytes:
        return (self.output / "adapter_model.safetensors").read_bytes()

    def predicted(self) -> int:
        "What the ledger says of the run as it was made."
        plan, record = make_plan(self.options), self.record
        plan = replace(plan, dtype=getattr(torch, record["plan"]["dtype"]),
                       gradient_checkpointing=record["plan"]["gradient_checkpointing"])
        rows = load_data(plan, load_tokenizer(plan.folder)).train
        return ledger(plan.shape, recipe_of(plan, rows)).counted


def limited(gigabytes: float) -> Path:
    "A control group that may hold so much; raises OSError where none can be made."
    old = GROUPS / "memory"
    parent, name = (old, "memory.limit_in_bytes") if old.is_dir() else (GROUPS, "memory.max")
    group = parent / f"qlora_nb_{os.getpid()}"
    group.mkdir()
    (group / name).write_text(str(round(gigabytes * 1e9)))
    return group


def rate(folder: Path, place: Path) -> dict:
    "The best of thirty, by dtype: whatever runs beside it only lowers a rate."
    best: dict[str, int] = {}
    for _ in range(30):
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            best[name] = max(best.get(name, 0), round(matmul_rate(dtype=dtype, size=2048)))
        time.sleep(1)
    return best


def job(folder: Path, place: Path) -> list[dict]:
    "The command itself, at two lengths, where memory is plenty and where it is scarce."
    rows = []
    for tokens, steps, limit_gb in [(128, 4, None), (128, 4, 6), (512, 3, None), (512, 3, 8)]:
        one, group = Job(folder, place, tokens, steps), None
        try:
            group = limited(limit_gb) if limit_gb else None
        except OSError as error:
            print(f"no control group can be made here ({error}); left out", flush=True)
            continue
        status, last = one.run(group=group)
        if group:
            group.rmdir()
        assert status == 0, last
        measured, plan, predicted = one.record["metrics"], one.record["plan"], one.predicted()
        rows.append({
            "tokens": tokens, "limit_gb": limit_gb, "steps": steps, "dtype": plan["dtype"],
            "gradient_checkpointing": plan["gradient_checkpointing"],
            "seconds_to_first_step": round(measured["seconds_to_first_step"], 1),
            "seconds_per_step": round(measured["seconds"] / measured["steps_timed"], 2),
            "tokens_per_second": round(measured["tokens_per_second"], 2),
            "base_bytes": measured["base_bytes"], "adapter_bytes": measured["adapter_bytes"],
            "peak_memory": measured["peak_memory"], "predicted": predicted,
            "off_by": round(predicted / measured["peak_memory"] - 1, 4)})
        print(rows[-1], flush=True)
        shutil.rmtree(one.output)
    return rows


def loading(folder: Path, place: Path) -> dict:
    "What reading the weights takes, in a process of its own."
    script = ("import json, time, torch, bitsandbytes, peft; from qlora_nb.models import load_base;"
              "from qlora_nb.processor import MemoryWatch, anonymous_bytes;"
              "from qlora_nb.prepare import held_bytes\n"
              f"before, started = anonymous_bytes(), time.perf_counter()\n"
              f"with MemoryWatch() as watch: model = load_base({str(folder)!r})\n"
              "print(json.dumps({'seconds': round(time.perf_counter() - started, 1),"
              "'peak': watch.peak - before, 'model': held_bytes(model, trained=True)"
              " + held_bytes(model, trained=False)}))")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    shape = read_shape(str(folder))
    found["largest_matrix"] = 4 * shape.hidden * shape.intermediate
    return found


def kill(folder: Path, place: Path) -> dict:
    "Killed once it has saved, resumed, and compared with a run that nobody disturbed."
    whole, cut = (Job(folder, place, 128, 4, save_steps=2, compute_dtype="float32") for _ in range(2))
    assert whole.run()[0] == 0
    process, saved = cut.start(), False
    work = cut.output.with_name(cut.output.name + ".partial")
    while process.poll() is None and not saved:
        saved = any(work.glob("checkpoint-*"))
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    status, last = cut.run("--resume")
    assert status == 0, last
    return {"killed_after_a_checkpoint": saved, "equal_bytes": whole.adapter == cut.adapter}


def limit(folder: Path, place: Path) -> dict | str:
    "Where it may hold 3 GB: it must say so before it reads a weight."
    try:
        group = limited(3)
    except OSError as error:
        return f"no control group could be made here: {error}"
    started = time.perf_counter()
    try:
        status, said = Job(folder, place, 128, 2).run(group=group)
    finally:
        group.rmdir()
    return {"gigabytes": 3, "status": status, "said": said.replace(str(folder), "MODEL"),
            "seconds": round(time.perf_counter() - started, 1)}


def in_turns(contestants: dict, rounds: int, base: str) -> dict:
    "Median seconds, and the median over rounds of how many times as fast as `base`."
    taken = {who: [] for who in contestants}
    for number in range(rounds + 1):
        for who, call in contestants.items():
            started = time.perf_counter()
            call()
            if number:  # the first round warms up
                taken[who].append(time.perf_counter() - started)
    return {who: {"seconds": round(statistics.median(times), 4), "speed": round(statistics.median(
        b / a for a, b in zip(times, taken[base], strict=True)), 3)} for who, times in taken.items()}


def both_ways(layers, inputs) -> None:
    for layer, x in zip(layers, inputs, strict=True):
        y = layer(x)
        torch.autograd.grad(y, x, torch.ones_like(y))


def bare_matrices(dtype: torch.dtype) -> list[torch.nn.Linear]:
    "The four matrices of one layer, as they are multiplied without quantization."
    torch.manual_seed(0)
    return [torch.nn.Linear(*size).to(dtype).requires_grad_(False)
            for size in layer_matrices(read_shape(RINNA)).values()]


def inputs_of(layers: list[torch.nn.Linear], tokens: int) -> list[torch.Tensor]:
    return [torch.randn(tokens, one.in_features, dtype=one.weight.dtype, requires_grad=True)
            for one in layers]


def layer(folder: Path, place: Path, rounds: int = 4) -> list[dict]:
    "The four matrices of one layer."
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        bare = bare_matrices(dtype)
        reference = [Linear4bit.from_linear(one, compute_dtype=dtype) for one in bare]
        plain, ours = ([theirs(one, dtype) for one in bare] for _ in range(2))
        for one in ours:
            use_tiles(one)
        for tokens in (128, 512):
            inputs = inputs_of(bare, tokens)
            found = in_turns({name: lambda who=who: both_ways(who, inputs) for name, who in [
                ("bare", bare), ("ours", ours), ("reference", reference),
                ("bitsandbytes", plain)]}, rounds, "bare")
            rows.append({"dtype": str(dtype).removeprefix("torch."), "tokens": tokens} | found)
            print(rows[-1], flush=True)
    return rows


def tiles(folder: Path, place: Path, rounds: int = 4) -> list[dict]:
    "How large a tile should be: speeds as shares of the bare product's."
    rows, usual = [], linear4bit.TILE
    for dtype in (torch.float32, torch.bfloat16):
        bare = bare_matrices(dtype)
        ours = [theirs(one, dtype) for one in bare]
        for one in ours:
            use_tiles(one)

        def cut(size: int, inputs: list) -> None:
            linear4bit.TILE = bnb_layers.TILE = size
            both_ways(ours, inputs)

        for tokens in (128, 512):
            inputs = inputs_of(bare, tokens)
            found = in_turns({"bare": lambda: both_ways(bare, inputs)} | {
                name: lambda size=size: cut(size, inputs)
                for name, size in [*((f"2^{n}", 2**n) for n in range(20, 25)), ("whole", 2**40)]},
                rounds, "bare")
            rows.append({"dtype": str(dtype).removeprefix("torch."), "tokens": tokens}
                        | {name: row["speed"] for name, row in found.items()})
            print(rows[-1], flush=True)
    linear4bit.TILE = bnb_layers.TILE = usual
    return rows


def plain_model(folder: Path):
    "As transformers, peft and bitsandbytes document it, nothing chosen but what they ask for."
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True))
    model = prepare_model_for_kbit_training(model)
    model.config.use_cache = False
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear",
                                            task_type="CAUSAL_LM")).train()


def step(folder: Path, place: Path, rounds: int = 1) -> list[dict]:
    "A whole training step, with a third of the layers so that three models fit side by side."
    shape = replace(read_shape(RINNA), layers=12)
    write_checkpoint(place / "third", shape)
    models = {"plain": plain_model(place / "third")}
    for dtype in (torch.float32, torch.bfloat16):
        model = load_base(place / "third", compute_dtype=dtype)
        models[f"ours, {dtype}".replace("torch.", "")] = prepare(model, 8, 16, dtype=dtype).train()
    for model in models.values():
        model.config.use_cache = False
    optimizers = {name: torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4)
                  for name, model in models.items()}
    rows = []

    def one(name: str, ids: torch.Tensor) -> None:
        model, batch = models[name], {"input_ids": ids, "labels": ids}
        narrow = name.endswith("bfloat16")
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            loss = model(**batch).loss if name == "plain" else training_loss(model, batch)
        loss.backward()
        optimizers[name].step()
        optimizers[name].zero_grad()

    for tokens in (128, 1024):
        ids = torch.randint(0, shape.vocab, (1, tokens))
        found = in_turns({name: lambda name=name: one(name, ids) for name in models}, rounds, "plain")
        rows.append({"layers": shape.layers, "tokens": tokens} | found)
        print(rows[-1], flush=True)
    shutil.rmtree(place / "third")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART",
                        help=", ".join(PARTS))
    parser.add_argument("--keep", type=Path, help="a folder for the checkpoint, made once")
    wanted = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        disk, memory = shutil.disk_usage((wanted.keep or place).parent).free, psutil.virtual_memory().available
        print(f"needs 8 GB of disk and 8 GB of memory; there are {disk / 1e9:.0f} GB and "
              f"{memory / 1e9:.0f} GB", flush=True)
        if disk < 8e9 or memory < 8e9:
            return 2
        folder = wanted.keep or place / "rinna"
        if {"job", "loading", "kill", "limit"} & {*wanted.only} and not (folder / "config.json").exists():
            write_checkpoint(folder, read_shape(RINNA))
        for part in wanted.only:
            print(f"== {part}", flush=True)
            found = globals()[part](folder, place)
            gc.collect()
            old = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
            same = old.get("machine") == machine() and old.get("versions") == versions()
            write_json(RESULTS, {
                "question": __doc__.splitlines()[0], "machine": machine(), "versions": versions(),
                **({name: old[name] for name in PARTS if name in old} if same else {}),
                part: found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
