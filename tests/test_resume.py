"""A run that is killed and resumed ends with the same adapter, to the bit, as one that is not."""
import hashlib
import json
import shutil
import signal
import subprocess
import time

import pytest

from conftest import COMMAND

# Dropout draws random numbers in every step, and rows come in a shuffled order over two epochs:
# a resumed run must find both again.
RECIPE = ["--steps", "24", "--save-steps", "4", "--eval-steps", "8", "--batch-size", "8",
          "--dropout", "0.1", "--held-out", "4", "--max-new-tokens", "4", "--seed", "3"]


def adapter_digest(folder):
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def kill_when(arguments, cwd, happened):
    "Start a run, kill it with SIGKILL as soon as `happened()`; fail if it ends before."
    process = subprocess.Popen([*COMMAND, "finetune", *arguments], cwd=cwd,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not happened():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run did not reach the point of the kill"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("backend", ["bitsandbytes", "reference"])
def test_killed_and_resumed_is_uninterrupted(tmp_path, called, small_data, backend):
    recipe = [*RECIPE, "--data", str(small_data), "--backend", backend]
    done = called("finetune", *recipe, "--output", "whole")
    assert done.returncode == 0, done.stderr
    reference = adapter_digest(tmp_path / "whole")

    recipe += ["--output", "killed"]
    work = tmp_path / "killed.partial"
    resumed = [*recipe, "--resume"]
    # before the first checkpoint; between two; in the middle of writing one
    kill_when(recipe, tmp_path, (work / "before.json").exists)
    kill_when(resumed, tmp_path, (work / "checkpoint-8").exists)
    kill_when(resumed, tmp_path, (work / "unfinished" / "checkpoint-16" / "optimizer.pt").exists)
    assert not (tmp_path / "killed").exists(), "an output folder must not appear before its end"
    assert [p.name for p in work.glob("checkpoint-*")] == ["checkpoint-12"]
    done = called("finetune", *resumed)
    assert done.returncode == 0, done.stderr
    assert "continuing at checkpoint-12" in done.stderr
    assert adapter_digest(tmp_path / "killed") == reference
    assert not work.exists()
    losses = [[row["loss"] for row in json.loads((tmp_path / run / "run.json").read_text())["history"]
               if "loss" in row] for run in ("whole", "killed")]
    assert losses[0] == losses[1] and len(losses[0]) >= 4

    # A finished run is recognized; another one in its place is refused.
    assert "finished already" in called("finetune", *resumed).stderr
    refused = called("finetune", *recipe)
    assert refused.returncode == 2 and "--overwrite" in refused.stderr
    assert adapter_digest(tmp_path / "killed") == reference


def in_mount(tmp_path, options, arguments, command=COMMAND, **more):
    "Run the command with a small or read-only file system at ./disk, in namespaces of its own."
    if not shutil.which("unshare") or subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", tmp_path]).returncode:
        pytest.skip("this system does not let a process mount a small disk of its own")
    (tmp_path / "disk").mkdir()
    script = f'mount -t tmpfs -o {options} tmpfs disk && exec "$@"'
    return subprocess.run(["unshare", "-rm", "sh", "-c", script, "sh", *command, *arguments],
                          cwd=tmp_path, text=True, capture_output=True, timeout=300, **more)


@pytest.mark.parametrize("options, words", [("size=1m", "MB free"), ("ro", "cannot write")])
def test_full_or_read_only_disk_is_found_before_training(tmp_path, small_data, options, words):
    done = in_mount(tmp_path, options, ["finetune", *RECIPE, "--data", str(small_data),
                                        "--output", "disk/run"])
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert "asking the base model" not in done.stderr


def test_disk_that_fills_up_while_training_loses_nothing(tmp_path, small_data):
    filler = ('mount -t tmpfs -o size=24m tmpfs disk; '
              '(while [ ! -d disk/run.partial/checkpoint-4 ]; do sleep 0.01; done; '
              'dd if=/dev/zero of=disk/filler 2>/dev/null) & exec "$@"; ')
    if not shutil.which("unshare") or subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", tmp_path]).returncode:
        pytest.skip("this system does not let a process mount a small disk of its own")
    (tmp_path / "disk").mkdir()
    after = '; status=$?; ls disk/run.partial; exit $status'
    script = filler.replace('exec "$@"; ', '"$@"') + after
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *COMMAND, "finetune", *RECIPE,
         "--data", str(small_data), "--output", "disk/run"],
        cwd=tmp_path, text=True, capture_output=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "could not save checkpoint-" in done.stderr and "--resume" in done.stderr
    assert "checkpoint-" in done.stdout, "the last whole checkpoint must still be there"
