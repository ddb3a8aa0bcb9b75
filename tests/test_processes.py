"Several processes: they compute what one computes, and they end together."
import io
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
import torch
from conftest import COMMAND
from safetensors.torch import load_file

from qlora_nb.cli import main
from qlora_nb.core import InputError, read_json, write_json
from qlora_nb.finetune import _tell_of_others, finetune
from qlora_nb.models import pick_device
from qlora_nb.options import FinetuneOptions, resolve
from qlora_nb.processes import Team
from qlora_nb.runs import claim
from qlora_nb.trainer import WholeTrainer

STEPS = ["--steps", "400", "--save-steps", "2", "--batch-size", "4", "--accumulation", "2",
         "--held-out", "4", "--max-new-tokens", "2", "--quiet"]


@pytest.fixture(scope="module")
def pair():
    with Team(2) as team:
        yield team


@pytest.fixture(scope="module")
def options(small_data, tmp_path_factory):
    """Two batches in a step, so that two processes take one each; 57 rows: the last step has one.

    Dropout draws in each batch what it draws in one process.
    """
    rows = small_data.read_text(encoding="utf-8").splitlines()[:77]
    few = tmp_path_factory.mktemp("few") / "few.jsonl"
    few.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return FinetuneOptions(data=str(few), epochs=1.0, save_steps=3, batch_size=4, accumulation=2,
                           dropout=0.1,
                           held_out=20, max_new_tokens=2, device="cpu", eval_steps=0)


@pytest.fixture(scope="module")
def by_one(options, tmp_path_factory):
    place = tmp_path_factory.mktemp("one") / "run"
    finetune(replace(options, output=str(place)))
    return place


def run(options: FinetuneOptions, stop: int | None = None) -> dict:
    "A fine-tune in one of several processes, or by itself; `stop`: it breaks off before that step."
    step = WholeTrainer.training_step

    def training_step(self, *given):
        if self.state.global_step == stop:
            raise InputError("stopped here")
        return step(self, *given)

    WholeTrainer.training_step = training_step
    try:
        return finetune(options)
    finally:
        WholeTrainer.training_step = step


def adapters(*folders) -> list[dict]:
    return [load_file(Path(folder) / "adapter_model.safetensors") for folder in folders]


def furthest(one: dict, other: dict) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_two_processes_make_the_adapter_of_one_to_the_bit(pair, options, by_one, tmp_path):
    record, other = pair(run, replace(options, output=str(tmp_path / "run")))
    one, two = adapters(by_one, tmp_path / "run")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert record["metrics"]["steps"] == other["metrics"]["steps"] == 8
    assert read_json(tmp_path / "run" / "run.json")["plan"]["processes"] == 2
    losses = [[row["loss"] for row in read_json(place / "run.json")["history"] if "loss" in row]
              for place in (by_one, tmp_path / "run")]
    assert losses[0] == losses[1] and len(losses[0]) == 8
    alone = read_json(by_one / "run.json")  # questions are asked in turns, in the same batches
    assert record["answers"] == alone["answers"]
    assert record["metrics"]["exams"] == other["metrics"]["exams"] == alone["metrics"]["exams"]


def test_a_split_model_makes_it_within_rounding_with_half_of_the_codes(pair, options, by_one, tmp_path):
    record, _ = pair(run, replace(options, output=str(tmp_path / "run"), shard=True))
    assert furthest(*adapters(by_one, tmp_path / "run")) < 1e-6  # the largest weights are of 0.1
    alone = read_json(by_one / "run.json")["metrics"]
    for each in record["metrics"]["each_process"]:
        assert each["adapter_bytes"] == alone["adapter_bytes"] / 2
        assert .5 < each["base_bytes"] / alone["base_bytes"] < .52  # constants stay whole
    assert record["metrics"]["parameters"] == alone["parameters"]


@pytest.mark.parametrize("before, after", [("two, split", "one"), ("one", "two, split")])
def test_another_number_of_processes_goes_on(pair, options, by_one, tmp_path, before, after):
    def go(how, options, stop=None):
        options = replace(options, output=str(tmp_path / "run"), shard="split" in how)
        return pair(run, options, stop) if "two" in how else run(options, stop)

    with pytest.raises((InputError, RuntimeError), match="stopped here"):
        go(before, options, 5)
    assert (tmp_path / "run.partial" / "checkpoint-3").exists()
    assert read_json(tmp_path / "run.partial" / "options.json")["optimizer"] == "adamw_torch"
    go(after, replace(options, resume=True))
    assert furthest(*adapters(by_one, tmp_path / "run")) < 1e-6


def printed(*arguments) -> list[str]:
    "What a command prints, without the speed that it measures."
    out = io.StringIO()
    with redirect_stdout(out):
        assert main([str(argument) for argument in arguments]) == 0
    return [line for line in out.getvalue().splitlines() if not line.startswith("time:")]


@pytest.mark.parametrize("split", [[], ["--shard"]])
def test_a_dry_run_of_two_processes_counts_what_two_processes_count(pair, small_data, tmp_path, split):
    words = ["finetune", "--dry-run", "--device", "cpu", "--data", small_data, "--held-out", "4",
             "--batch-size", "4", "--output", tmp_path / "run", *split]
    (by_two, silent), alone = pair(printed, *words), printed(*words, "--processes", "2")
    counted = [line for line in alone if "│" in line and "processes" not in line]
    assert counted == [line for line in by_two if "│" in line and "processes" not in line] and not silent
    text = "\n".join(alone)
    assert re.search(r"processes +│ 2", text) and "adamw_torch" in text and "2 GPUs" in text
    assert ("put together" in text) == bool(split)


def test_a_run_with_states_that_cannot_be_split_says_so(options, tmp_path):
    options = replace(options, output=str(tmp_path / "run"))
    paged = asdict(resolve(replace(options, optimizer="paged_adamw_32bit")))  # as begun on one GPU
    (tmp_path / "run.partial").mkdir()
    write_json(tmp_path / "run.partial" / "options.json", paged)
    with pytest.raises(InputError, match="has states of --optimizer paged_adamw_32bit, which --shard"):
        with claim(replace(options, resume=True, shard=True)):
            pass


def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device() == torch.device("cuda")
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert pick_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="process 2 of this machine has no GPU: there are 2"):
        pick_device()


def test_gpus_that_do_nothing_are_named(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with caplog.at_level("INFO", "qlora_nb"):
        _tell_of_others(torch.device("cpu"))
        assert not caplog.text
        _tell_of_others(torch.device("cuda"))
    assert "has 4 GPUs and this run uses one; --processes 4 uses all, and --shard" in caplog.text


def workers(of: int) -> list[int]:
    "The processes that a process has started, by number, those of torchrun's launcher first."
    found = [child for child in psutil.Process(of).children(recursive=True)
             if "finetune" in " ".join(child.cmdline())]
    return [child.pid for child in sorted(found, key=lambda child: int(child.environ()["RANK"]))]


@pytest.mark.parametrize("who, status, words", [
    ("process 1", 2, "process 1 of the run was killed"),
    ("the launcher", -signal.SIGKILL, "what started the processes of the run has ended")])
def test_whoever_is_killed_ends_all_with_one_sentence(tmp_path, small_data, who, status, words):
    output = tmp_path / "run"
    running = subprocess.Popen(
        [*COMMAND, "finetune", "--data", str(small_data), "--output", str(output), "--processes", "2", *STEPS],
        cwd=tmp_path, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("run.partial/checkpoint-*")):
        assert running.poll() is None and time.monotonic() < until, running.communicate()[1]
        time.sleep(0.2)
    pids = workers(running.pid)
    assert len(pids) == 2
    os.kill(running.pid if who == "the launcher" else pids[1], signal.SIGKILL)
    killed = time.monotonic()
    _, said = running.communicate(timeout=60)
    while any(alive(pid) for pid in pids) and time.monotonic() - killed < 10:
        time.sleep(0.1)
    assert time.monotonic() - killed < 10 and running.returncode == status
    assert len(said.strip().splitlines()) == 1, said
    assert words in said and "--resume" in said and not output.exists()


def alive(pid: int) -> bool:
    "Whether a process runs; one that has ended may wait for a parent to look at it."
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_process_without_memory_ends_all_that_torchrun_has_started(tmp_path, small_data):
    script = tmp_path / "poor.py"
    script.write_text("""
import sys
from qlora_nb import cli, processes, trainer
step = trainer.WholeTrainer.training_step
def training_step(self, *given):
    if processes.rank() == 1 and self.state.global_step == 3:
        raise MemoryError("Cannot allocate memory")
    return step(self, *given)
trainer.WholeTrainer.training_step = training_step
sys.exit(cli.main())
""")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script), "finetune",
         "--data", str(small_data), "--output", "run", *STEPS],
        cwd=tmp_path, text=True, capture_output=True, timeout=120)
    said = re.findall(r"^qlora-nb: .*", done.stderr, re.M)
    assert done.returncode and len(said) == 1, done.stderr
    assert "process 1: the memory ran out" in said[0] and "checkpoint-2 is whole" in said[0]
