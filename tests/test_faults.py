"""What a long run may meet: too little memory, no GPU, a full disk; nothing trained is lost."""
import json
import os
import re
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from conftest import COMMAND, write_rows
from qlora_nb.model_files import save_adapter
from qlora_nb.models import fetch_model, load_base
from qlora_nb.qlora import insert_lora
from test_cli import refused
from test_memory import CONFIG
from test_resume import in_mount

limited = pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"),
                             reason="this system cannot limit the memory of a running process")
# Without dropout: its random numbers depend on how a step is split.
RECIPE = ["finetune", "--steps", "30", "--save-steps", "3", "--eval-steps", "0", "--held-out", "4",
          "--max-new-tokens", "4", "--seed", "3", "--device", "cpu"]
SPLIT = ["--batch-size", "48", "--accumulation", "1"]  # 116 rows: the third step is a short one


def limit_memory(process, spare):
    "From now on the process gets `spare` bytes of address space beyond what it holds at least."
    sizes = [process.memory_info().vms]
    for _ in range(30):
        time.sleep(0.01)
        sizes.append(process.memory_info().vms)
    process.rlimit(psutil.RLIMIT_AS, (min(sizes) + spare, psutil.RLIM_INFINITY))


def losses(folder):
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return torch.tensor([row["loss"] for row in record["history"] if "loss" in row])


@limited
def test_memory_that_runs_out_while_training(tmp_path, called, small_data):
    recipe = [*RECIPE, "--data", str(small_data)]
    whole = called(*recipe, *SPLIT, "--output", "whole")
    assert whole.returncode == 0, whole.stderr

    work = tmp_path / "short.partial"
    # Nothing that was given back is used again: each batch asks the system for its memory.
    own = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    process = psutil.Popen([*COMMAND, *recipe, *SPLIT, "--output", "short"], cwd=tmp_path, env=own,
                           text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while not (work / "checkpoint-3").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    limit_memory(process, spare=1_000_000)
    _, errors = process.communicate(timeout=300)
    process.stderr = errors
    refused(process, "memory ran out", "checkpoint-", "is whole", "--resume",
            "--batch-size 24 --accumulation 2")
    saved = [path.name for path in work.glob("checkpoint-*")]
    assert len(saved) == 1 and saved[0] in errors
    assert not (tmp_path / "short").exists()

    # Another step is refused; the same in other pieces goes on, and so does recomputing.
    recipe += ["--output", "short", "--resume"]
    refused(called(*recipe, "--batch-size", "24", "--accumulation", "1"), "48 x 1", "24 x 1")
    advised = re.search(r"--batch-size \d+ --accumulation \d+", errors)[0].split()
    done = called(*recipe, *advised, "--gradient-checkpointing")
    assert done.returncode == 0, done.stderr
    assert f"continuing at {saved[0]}" in done.stderr
    assert "finished already" in called(*recipe, *SPLIT).stderr
    # Sums of float32 in another order, whose last bits training magnifies: 1e-7 after nine steps.
    torch.testing.assert_close(losses(tmp_path / "short"), losses(tmp_path / "whole"),
                               rtol=1e-3, atol=1e-4)
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors")
                    for name in ("short", "whole"))
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-2, atol=1e-3)


SCRIPT = """
import gc, resource, sys
import psutil, torch
from transformers import GPTNeoXForCausalLM
from qlora_nb.finetune import finetune
from qlora_nb.options import FinetuneOptions
from qlora_nb.core import InputError

torch.ones(600, 600) @ torch.ones(600, 600)
spare = psutil.Process().memory_info().vms + 700_000_000
resource.setrlimit(resource.RLIMIT_AS, (spare, resource.RLIM_INFINITY))
try:
    finetune(FinetuneOptions(data=sys.argv[1], output="run", batch_size=100, device="cpu", steps=4,
                             held_out=4, max_new_tokens=4, eval_steps=0, sequence_length=512))
except InputError as error:
    print(error)
    print("models held:", sum(isinstance(o, GPTNeoXForCausalLM) for o in gc.get_objects()))
"""


@limited
def test_memory_that_runs_out_in_a_notebook_is_given_back(tmp_path):
    "Before the first checkpoint; whoever holds the error does not hold the model."
    rows = [{"instruction": f"{i}は？" * 30, "output": "長い話。" * 40} for i in range(120)]
    data = write_rows(tmp_path / "long.jsonl", rows)
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(data)], cwd=tmp_path, text=True,
                          capture_output=True, timeout=300)
    said, held = done.stdout.splitlines()
    assert "memory ran out" in said and "checkpoint" not in said
    assert "go on with --resume --batch-size 50 --accumulation 2" in said
    assert held == "models held: 0"


def test_a_model_too_large_for_the_processor(tmp_path, called, command, small_data, monkeypatch):
    "Known from config.json alone: the file of weights is empty and never read."
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "model.safetensors").touch()
    run = ["finetune", "--model", folder, "--data", small_data, "--epochs", 100]
    done = command(*run)
    refused(done, "without a GPU", "days on this processor", "micro model", "--device cpu")
    days, steps = (int(re.search(rf"([\d,]+) {word}", done.stderr)[1].replace(",", ""))
                   for word in ("days", "steps"))
    assert steps == 800 and days > 1  # 120 rows are 30 batches of 4, and 8 steps of 4 batches
    assert not (tmp_path / "runs").exists()
    insisted = called(*run, "--device", "cpu")  # and then it is the tokenizer that is missing
    refused(insisted, "tokenizer")
    few = command(*run, "--steps", 1, "--batch-size", 1, "--accumulation", 1,
                  "--sequence-length", 64)
    assert "GPU" not in few.stderr and "tokenizer" in few.stderr
    mistyped = called("finetune", "--model", folder, "--data", "missing.jsonl")
    refused(mistyped, "missing.jsonl")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    "An adapter of the micro model that has learned nothing."
    folder = tmp_path_factory.mktemp("adapter") / "new"
    model = load_base(fetch_model("micro"), backend="reference")
    save_adapter(insert_lora(model, rank=4, alpha=8), folder, "micro")
    return folder


def test_a_merged_model_that_the_disk_cannot_hold(tmp_path, adapter):
    folder = tmp_path / "disk" / "merged"
    done = in_mount(tmp_path, "size=1m", ["merge", "--adapter", adapter, "--output", folder])
    refused(done, "could not save", "merged", "No space left", "run the command again")


def test_a_conversation_that_the_disk_cannot_hold(tmp_path, adapter):
    "The disk has one page of memory: room for one conversation."
    lines = ["空は？", "/save disk/first.json", "/save disk/second.json", "海は？", "/save third.json"]
    done = in_mount(tmp_path, "size=4k", ["--adapter", adapter, "--max-new-tokens", "4"],
                    [*COMMAND, "chat"], input="\n".join(lines) + "\n")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "saved in disk/first.json" in done.stdout
    wrong = [line for line in done.stderr.splitlines() if line.startswith("qlora-nb")]
    assert len(wrong) == 1 and "disk/second.json" in wrong[0] and "No space left" in wrong[0]
    talk = json.loads((tmp_path / "third.json").read_text(encoding="utf-8"))[0]["messages"]
    assert [turn["content"] for turn in talk[::2]] == ["空は？", "海は？"]


FULL = """
import os, torch
from pathlib import Path
from transformers import AutoModelForCausalLM
from qlora_nb.core import InputError
from qlora_nb.core import saving
from qlora_nb.models import fetch_model, load_base
from qlora_nb.model_files import save_4bit, save_adapter
from qlora_nb.qlora import insert_lora, quantize_model

model = load_base(fetch_model("micro"), backend="reference")
def attempt(save, *arguments):
    try: save(*arguments)
    except InputError as error: print(error)
    print(sorted(path.name for path in Path("disk").rglob("*")))

attempt(save_4bit, model, "disk/four")
insert_lora(model, rank=64, alpha=8)
attempt(save_adapter, model, "disk/adapter")
def checkpoint():
    with saving("checkpoint-50"): save_adapter(model, "disk/adapter")
attempt(checkpoint)
"""


def test_models_and_adapters_that_the_disk_cannot_hold(tmp_path):
    done = in_mount(tmp_path, "size=1m", [], [sys.executable, "-c", FULL])
    assert done.returncode == 0, done.stderr
    four, left, adapter, kept, checkpoint, again = done.stdout.splitlines()
    assert "could not save disk/four" in four and "No space left" in four and left == "[]"
    assert "could not save disk/adapter" in adapter and "save it again" in adapter
    assert kept == again == "['adapter']"  # a folder, and nothing half-written in it
    assert "could not save checkpoint-50" in checkpoint and "--resume" in checkpoint
