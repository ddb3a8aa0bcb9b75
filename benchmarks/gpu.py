"""Everything that waits for an NVIDIA GPU, by its worth, within a budget of seconds.

    python benchmarks/gpu.py [--budget 3600] [STEP ...]     or `make gpu BUDGET=480`
    python benchmarks/gpu.py --dry     no GPU: the steps, their limits, and what would fit

Each step is a process of its own with a share of the budget as its limit. A step that reaches it is
ended, and what it has written until then stays; one that fails does not stop those after it; one
for which too little time is left, or whose packages are missing, is named and skipped. The table
at the end says what was done, and the exit status is 1 if a step failed. Results are written where
each script writes them, with the name of the GPU and the versions. Nothing is downloaded: the steps
share a checkpoint of rinna 3.6b's true shape with random weights and the micro model's tokenizer,
made in a temporary folder (7.2 GB). Without a GPU it exits with 2.
"""
import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
PYTHON = sys.executable
FOLDER = "{checkpoint}"  # stands for the folder of the shared checkpoint

# What a machine that has torch and transformers may lack.
LIBRARY = ("bitsandbytes", "datasets", "accelerate", "peft", "sentencepiece", "matplotlib", "psutil",
           "filelock", "rich")
TESTS, CHAPTERS = ("pytest",), ("nbclient", "nbdev", "ipykernel", "fastcore", "pandas")


@dataclass(frozen=True)
class Step:
    "One process."
    name: str
    share: float  # of the budget, at most
    least: float  # seconds with which it is worth to begin
    command: tuple
    needs: tuple = ()  # packages beyond those of the library


def script(name: str, *options) -> tuple:
    return (PYTHON, str(HERE / f"{name}.py"), *options)


def chapters(*names) -> tuple:
    return (PYTHON, str(ROOT / "docs" / "execute.py"), "--flags", "gpu",
            *(str(ROOT / "nbs" / f"{name}.ipynb") for name in names))


STEPS = [  # by worth
    Step("checkpoint", 0.2, 20, script("t4_gpu", "--make", FOLDER)),
    Step("recipe", 0.35, 60, script("recipe", "--checkpoint", FOLDER, "--rounds", "5",
                                    "--only", "ours")),
    Step("t4", 0.3, 60, script("t4_gpu", "--checkpoint", FOLDER)),
    Step("rinna", 0.3, 60, chapters("18_rinna"), CHAPTERS),
    Step("quantize", 0.15, 20, script("quantize", "--device", "cuda")),
    Step("linear", 0.15, 20, script("linear", "--device", "cuda")),
    Step("paged", 0.2, 40, script("paged_gpu")),
    Step("tests", 0.2, 30, (PYTHON, "-m", "pytest", "-q", *(
        str(ROOT / "tests" / f"test_{name}.py") for name in ("gpu", "paged_gpu", "lean"))), TESTS),
    Step("recipe-t4", 0.35, 60, script(
        "recipe", "--checkpoint", FOLDER, "--only", "ours", "--limit-gb", "15", "--compute-dtype",
        "float16")),
    Step("memory", 0.5, 60, script("memory_gpu", "--checkpoint", FOLDER)),
    Step("pages", 0.2, 40, chapters("13_paged"), CHAPTERS),
    Step("contestants", 0.5, 90, script("recipe", "--checkpoint", FOLDER)),
]


def needs_checkpoint(step: Step) -> bool:
    "Whether it reads the shared checkpoint; chapters find it through QLORA_NB_MODEL."
    return FOLDER in step.command and step.name != "checkpoint" or step.needs == CHAPTERS


def missing(packages) -> list[str]:
    "Those that cannot be imported."
    return [name for name in packages if find_spec(name) is None]


def end(process: subprocess.Popen) -> None:
    "End a step and what it has started: politely, then not."
    for sign, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, sign)
            process.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def run_step(step: Step, limit: float, checkpoint: str) -> str:
    "Run it for at most `limit` seconds; what became of it, in a few words."
    command = [part.replace(FOLDER, checkpoint) for part in step.command]
    environment = os.environ | {"QLORA_NB_MODEL": checkpoint, "QLORA_NB_DATA": "micro"}
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        end(process)
        return f"cut at its limit of {limit:.0f} s; what it has written stays"
    except BaseException:  # a step does not outlive an interrupt
        end(process)
        raise
    seconds = time.monotonic() - start
    return f"done in {seconds:.0f} s" if status == 0 else f"FAILED ({status}) after {seconds:.0f} s"


def run_steps(steps: list[Step], budget: float, checkpoint: str, started: float) -> dict[str, str]:
    "Name -> what became of it; `started` is when the budget began, by `time.monotonic`."
    outcome = {}
    for step in steps:
        left = budget - (time.monotonic() - started)
        lacks = missing(step.needs)
        if lacks:
            outcome[step.name] = f"not done: it needs {', '.join(lacks)}"
        elif needs_checkpoint(step) and outcome.get("checkpoint", "done")[:4] != "done":
            outcome[step.name] = "not done: there is no checkpoint"
        elif left < step.least:
            outcome[step.name] = f"not done: {max(left, 0):.0f} s were left, it needs {step.least:.0f}"
        else:
            print(f"\n== {step.name}, {left:.0f} s left", flush=True)
            outcome[step.name] = run_step(step, min(left, step.share * budget), checkpoint)
    return outcome


def planned(steps: list[Step], budget: float) -> str:
    "A line for each step: its limit, and whether it fits if those before it take theirs."
    lines, left = [], budget
    for step in steps:
        limit = min(left, step.share * budget)
        fits = limit >= step.least
        lines.append(f"{step.name:12}{f'at most {limit:.0f} s' if fits else 'if time is left':18}"
                     f"{' '.join(Path(part).name for part in step.command[1:])}")
        left -= limit if fits else 0
    return "\n".join(lines)


def main() -> int:
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [step.name for step in STEPS]
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(names))
    parser.add_argument("--budget", type=float, default=3600, help="seconds for all steps together")
    parser.add_argument("--dry", action="store_true", help="say what would be done, and end")
    wanted = parser.parse_args()
    unknown = set(wanted.steps) - set(names)
    if unknown:
        parser.error(f"unknown step {min(unknown)!r}; known: {', '.join(names)}")
    if not wanted.budget > 0:
        parser.error(f"the budget is {wanted.budget:g} seconds; it must be positive")
    chosen = [step for step in STEPS if not wanted.steps or step.name in wanted.steps]
    if any(needs_checkpoint(step) for step in chosen):
        chosen = [STEPS[0], *(step for step in chosen if step.name != "checkpoint")]
    lacks = missing((*LIBRARY, *TESTS, *CHAPTERS))
    if lacks:
        print(f"this machine lacks {', '.join(lacks)}; pip install {' '.join(lacks)}, or the steps "
              "that need them are left out", file=sys.stderr)
    if wanted.dry:
        return print(planned(chosen, wanted.budget)) or 0
    import torch

    if not torch.cuda.is_available():
        print("these steps need an NVIDIA GPU that torch can see, and there is none; "
              "`make test` and `make bench` need none", file=sys.stderr)
        return 2
    if missing(LIBRARY):
        return 2
    print(torch.cuda.get_device_name(), "torch", torch.__version__, flush=True)
    with tempfile.TemporaryDirectory() as checkpoint:
        outcome = run_steps(chosen, wanted.budget, checkpoint, started)
    print("\n== what became of them", *(f"{name:12}{what}" for name, what in outcome.items()), sep="\n")
    return int(any(what.startswith("FAILED") for what in outcome.values()))


if __name__ == "__main__":
    sys.exit(main())
