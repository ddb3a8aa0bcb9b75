"""`make gpu` within a budget: what is run, cut, left out and said, with processes that sleep."""
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu():
    "The script as a module."
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu"] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu"]


def python(*lines: str) -> tuple:
    return (sys.executable, "-c", "\n".join(lines))


def test_a_step_is_cut_with_what_it_has_started_and_leaves_what_it_wrote(gpu, tmp_path):
    sleeper = "import subprocess, sys, time; print('measured', file=open('{0}', 'w'))"
    child = (f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(4); "
             f"open(\"{tmp_path}/late\", \"w\")'])")
    steps = [
        gpu.Step("slow", 0.2, 0.5, python(sleeper.format(tmp_path / "part"), child, "time.sleep(60)")),
        gpu.Step("broken", 0.5, 0.5, python("raise SystemExit(3)")),
        gpu.Step("quick", 0.5, 0.5, python(f"open('{tmp_path}/quick', 'w')")),
    ]
    started = time.monotonic()
    outcome = gpu.run_steps(steps, 10, str(tmp_path), started)
    assert time.monotonic() - started < 8
    assert outcome["slow"].startswith("cut at its limit of 2 s")
    assert (tmp_path / "part").read_text() == "measured\n"
    assert outcome["broken"].startswith("FAILED (3)") and outcome["quick"].startswith("done")
    assert (tmp_path / "quick").exists()
    time.sleep(max(0, 5 - (time.monotonic() - started)))
    assert not (tmp_path / "late").exists()  # what a step has started ends with it


def test_what_no_longer_fits_is_named_and_what_needs_less_still_runs(gpu, tmp_path):
    steps = [gpu.Step("first", 1.0, 0.1, python("import time; time.sleep(1.2)")),
             gpu.Step("large", 1.0, 2.9, python(f"open('{tmp_path}/large', 'w')")),
             gpu.Step("small", 1.0, 0.1, python("pass")),
             gpu.Step("lacking", 1.0, 0.1, python("pass"), ("no_such_package",))]
    outcome = gpu.run_steps(steps, 4, str(tmp_path), time.monotonic())
    assert outcome["first"].startswith("done") and outcome["small"].startswith("done")
    assert outcome["large"].startswith("not done") and "it needs 3" in outcome["large"]
    assert outcome["lacking"] == "not done: it needs no_such_package"
    assert not (tmp_path / "large").exists()


def test_without_a_checkpoint_nothing_that_reads_it_begins(gpu, tmp_path):
    steps = [gpu.Step("checkpoint", 0.5, 0.1, python("raise SystemExit(1)")),
             gpu.Step("recipe", 0.5, 0.1, (*python("pass"), gpu.FOLDER)),
             gpu.Step("other", 0.5, 0.1, python("pass"))]
    outcome = gpu.run_steps(steps, 20, str(tmp_path), time.monotonic())
    assert outcome["recipe"] == "not done: there is no checkpoint"
    assert outcome["other"].startswith("done")


def test_the_shared_checkpoint_and_the_model_are_handed_on(gpu, tmp_path):
    said = python("import os, sys",
                  f"open('{tmp_path}/said', 'w').write(sys.argv[1] + os.environ['QLORA_NB_MODEL'])")
    outcome = gpu.run_steps([gpu.Step("x", 1, 0, (*said, gpu.FOLDER))], 20, "/there", time.monotonic())
    assert outcome["x"].startswith("done") and (tmp_path / "said").read_text() == "/there/there"


def test_the_order_is_by_worth_and_eight_minutes_hold_the_first(gpu):
    names = [step.name for step in gpu.STEPS]
    assert names[:4] == ["checkpoint", "recipe", "t4", "rinna"] and len(set(names)) == len(names)
    lines = gpu.planned(gpu.STEPS, 480).splitlines()
    assert [line.split()[0] for line in lines] == names
    assert [line for line in lines if "at most" in line][2].split()[:4] == ["t4", "at", "most", "144"]
    assert "if time is left" in lines[-1]
    for step in gpu.STEPS:  # what a step runs is there
        for part in step.command[1:]:
            assert not part.endswith((".py", ".ipynb")) or Path(part).exists(), part


def run(*options: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *options], text=True, capture_output=True)


def test_dry_says_what_would_be_done_and_does_nothing():
    done = run("--dry", "--budget", "480", "quantize", "recipe")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["checkpoint", "recipe", "quantize"]
    assert "at most 168 s" in done.stdout and "--rounds 5 --only ours" in done.stdout
    assert run("nosuch").returncode == 2 and "positive" in run("--budget", "0", "--dry").stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_refuses_in_one_sentence():
    done = run("quantize")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.strip().splitlines()[-1].startswith("these steps need an NVIDIA GPU")


def test_what_the_machine_lacks_is_said_at_the_start(gpu):
    assert gpu.missing(("torch", "no_such_package")) == ["no_such_package"]
    assert set(gpu.LIBRARY) & set(gpu.TESTS + gpu.CHAPTERS) == set()
