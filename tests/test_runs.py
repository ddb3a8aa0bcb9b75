"""A run never loses, fakes or mixes up anything: killed, crowded, spoiled or badly placed."""
import fcntl
import json
import logging
import os
import pty
import re
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from conftest import COMMAND
from qlora_nb.progress import Progress, log
from qlora_nb.micro import micro_folder
from test_cli import refused
from test_resume import adapter_digest, kill_when

FAST = ["finetune", "--steps", "2", "--batch-size", "4", "--eval-steps", "0", "--held-out", "2",
        "--max-new-tokens", "2", "--device", "cpu"]


@pytest.fixture
def few(tmp_path):
    "Forty rows of the micro world, and forty others under the same columns."
    lines = (micro_folder() / "train.jsonl").read_text(encoding="utf-8").splitlines()
    for name, rows in [("rows.jsonl", lines[:40]), ("others.jsonl", lines[40:80])]:
        (tmp_path / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path / "rows.jsonl"


def stop_and_go(arguments, cwd, happened):
    "Start a run and let it stand still, alive, as soon as `happened()`."
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], cwd=cwd, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    return process


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, called, few):
    "The adapter that stood there stays, and so does the last checkpoint of good weights."
    good = called(*FAST, "--data", few, "--output", "run")
    assert good.returncode == 0, good.stderr
    before = adapter_digest(tmp_path / "run")
    # A gradient that is not held back drives the weights up until float32 ends.
    wild = ["--learning-rate", "1", "--alpha", "1e18", "--max-grad-norm", "1e38", "--warmup", "0",
            "--schedule", "constant", "--steps", "30", "--save-steps", "1"]
    done = called(*FAST, *wild, "--data", few, "--output", "run", "--overwrite")
    refused(done, "at step", "begin again with --overwrite", "--learning-rate below 1")
    assert adapter_digest(tmp_path / "run") == before
    for saved in (tmp_path / "run.partial").glob("checkpoint-*"):
        assert saved.name in done.stderr
        weights = load_file(saved / "adapter_model.safetensors")
        assert all(torch.isfinite(weight).all() for weight in weights.values())
    text = (tmp_path / "run" / "run.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_resuming_asks_for_the_same_rows_and_takes_the_same_options(tmp_path, called, few):
    shutil.copy(few, tmp_path / "data.jsonl")
    recipe = ["--data", "data.jsonl", "--steps", "12", "--save-steps", "2", "--batch-size", "4",
              "--held-out", "2", "--max-new-tokens", "2", "--eval-steps", "0", "--seed", "5",
              "--output", "run"]
    work = tmp_path / "run.partial"
    kill_when(recipe, tmp_path, (work / "checkpoint-4").exists)
    saved = {path.name for path in work.iterdir()} - {"lock"}  # which goes with its process

    (tmp_path / "others.jsonl").rename(tmp_path / "data.jsonl")
    done = called("finetune", "--output", "run", "--resume")
    refused(done, "rows to train on", "held-out rows", "--overwrite")
    refused(called("finetune", "--output", "run", "--resume", "--seed", "0"), "--seed was 5")
    refused(called("finetune", "--output", "rum", "--resume"), "nothing to resume", "run.partial")
    refused(called("finetune", "--resume"), "nothing to resume in runs")
    assert {path.name for path in work.iterdir()} - {"lock"} == saved

    shutil.copy(few, tmp_path / "data.jsonl")
    done = called("finetune", "--output", "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert "continuing at checkpoint-" in done.stderr
    options = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["options"]
    assert (options["seed"], options["steps"], options["data"]) == (5, 12, "data.jsonl")
    assert "finished already" in called("finetune", "--output", "run", "--resume").stderr
    refused(called("finetune", "--output", "run", "--resume", "--rank", "2"),
            "finished already", "--rank was 8 and is now 2")


def test_two_at_once_never_share_a_folder(tmp_path, called, few):
    "One process stands still in the middle of its run; the others find its folder taken."
    run = [*FAST, "--data", few]
    work = tmp_path / "runs" / "micro.partial"
    first = stop_and_go([*run, "--save-steps", "1"], tmp_path, (work / "options.json").exists)
    try:
        inside = sorted(path.name for path in work.rglob("*"))
        for more in (["--output", "runs/micro"], ["--output", "runs/micro", "--overwrite"],
                     ["--output", "runs/micro", "--resume"]):
            refused(called(*run, *more), "another process is working in runs/micro.partial")
        assert sorted(path.name for path in work.rglob("*")) == inside
        second = called(*run)
        assert second.returncode == 0 and "runs/micro-2" in second.stdout, second.stderr
    finally:
        first.send_signal(signal.SIGCONT)
        said, errors = first.communicate(timeout=300)
    assert first.returncode == 0 and "are in runs/micro\n" in said, errors
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["micro", "micro-2"]


def test_two_that_start_in_the_same_moment(tmp_path, few):
    run = [*COMMAND, *FAST, "--data", str(few), "--output"]
    both = [subprocess.Popen([*run, "run"], cwd=tmp_path, text=True, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    assert sorted(os.listdir(tmp_path)) == ["others.jsonl", "rows.jsonl", "run"]


PLACES = ["./", "with spaces/", "札幌/実行", "--output=-dash", "100%", "two\nlines", "[red]*?",
          "é" * 120]


@pytest.mark.parametrize("place", PLACES)
def test_any_name_that_the_file_system_takes(tmp_path, called, monkeypatch, few, place):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    typed = [place] if place.startswith("--") else ["--output", place]
    done = called(*FAST, "--data", few, *typed)
    assert done.returncode == 0, done.stderr
    output = folder / place.removeprefix("--output=")
    assert (output / "run.json").is_file()
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob(".*"))
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    assert os.path.realpath(record["options"]["output"]) == os.path.realpath(output)
    assert "run.json are in" in done.stdout


def test_a_link_stays_a_link_and_the_files_of_others_stay(tmp_path, called, monkeypatch, few):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    run = [*FAST, "--data", few, "--output", "link"]
    done = called(*run, "--report-to", "tensorboard")
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stderr and len(done.stderr.splitlines()) < 12, "no bars in a file"
    assert list((tmp_path / "disk" / "tensorboard").rglob("events.*"))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "run.json").is_file()
    first = adapter_digest(tmp_path / "disk")
    (tmp_path / "disk" / "notes.md").write_text("mine")
    assert "--overwrite" in called(*run).stderr
    done = called(*run, "--overwrite", "--seed", "1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "disk" / "notes.md").read_text() == "mine"
    assert adapter_digest(tmp_path / "disk") != first


def test_new_files_have_the_rights_that_the_umask_gives(tmp_path, called, monkeypatch, few):
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o027)
    try:
        assert called(*FAST, "--data", few, "--output", "run").returncode == 0
    finally:
        os.umask(before)
    rights = {path.name: stat.S_IMODE(path.stat().st_mode)
              for path in [tmp_path / "run", *(tmp_path / "run").iterdir()]}
    assert rights.pop("run") == 0o750
    assert set(rights.values()) == {0o640}, rights


def test_a_narrow_terminal_keeps_the_loss(monkeypatch):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress("training", 250) as progress:
            progress.advance(25, loss="0.512", **{"tokens/s": "9,400", "peak": "10.2 GB"})
        drawn = ""
        while select.select([master], [], [], 0)[0]:
            drawn += os.read(master, 10_000).decode()
    os.close(master)
    assert "25/250, loss=0.512" in drawn
    assert max(map(len, re.split(r"[\r\n]+", drawn))) <= 40


def test_where_nothing_can_be_drawn_a_line_comes_now_and_then(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "qlora_nb")
    monkeypatch.setattr(log, "propagate", False)
    monkeypatch.setattr(log, "handlers", [caplog.handler])
    clock = count()  # a step takes a millisecond, however busy this machine is
    monkeypatch.setattr("qlora_nb.progress.time",
                        SimpleNamespace(monotonic=lambda: next(clock) / 1000))
    with Progress("training", 500, every=0.01) as progress:
        for _ in range(500):
            progress.advance(loss="0.512")
    assert len(caplog.messages) == 10
    assert re.fullmatch(r"training: \d+ of 500, loss 0.512, \d+ s left", caplog.messages[0])


def test_files_that_may_not_grow_and_a_checkpoint_that_is_spoiled(tmp_path, called, few):
    "The shell's limit for a file, below what a checkpoint takes, and lifted afterwards."
    run = [*FAST, "--data", str(few), "--output", "run", "--rank", "2", "--save-steps", "1"]
    limited = ["sh", "-c", 'ulimit -f 250 && exec "$@"', "sh", *COMMAND]  # 128 kB
    done = subprocess.run([*limited, *run], cwd=tmp_path, text=True, capture_output=True)
    refused(done, "could not save checkpoint-1 (File too large", "--resume")
    assert not list((tmp_path / "run.partial").glob("checkpoint-*"))

    spoiled = tmp_path / "run.partial" / "checkpoint-1"
    shutil.copytree(tmp_path / "run.partial" / "unfinished" / "checkpoint-1", spoiled)
    refused(called("finetune", "--output", "run", "--resume"), "checkpoint-1", "damaged", "remove")
    shutil.rmtree(spoiled)
    done = called("finetune", "--output", "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert "starting at the first step" in done.stderr
