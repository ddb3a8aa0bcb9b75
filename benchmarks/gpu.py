"""Everything that waits for an NVIDIA GPU, in one go: tests, benchmarks, chapters.

    python benchmarks/gpu.py [STEP ...]     or `make gpu`; --list names the steps

Each step is a process of its own. A step that fails does not stop those after it; the table at the
end says which did, and the exit status is 1. Results are written where each script writes them,
with the name of the GPU and the versions. Nothing is downloaded: chapter 18 runs on a checkpoint of
rinna 3.6b's true shape with random weights and the micro model's tokenizer, made in a temporary
folder (7.2 GB). Without a GPU it exits with 2.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from qlora_nb.memory import read_shape

HERE = Path(__file__).parent
ROOT = HERE.parent
PYTHON = sys.executable


def flagged_chapters() -> list[str]:
    "The notebooks that have cells for a GPU."
    return [str(path) for path in sorted((ROOT / "nbs").glob("*.ipynb"))
            if '"#| gpu' in path.read_text(encoding="utf-8")]


STEPS = {
    "tests": [PYTHON, "-m", "pytest", "-q", "tests/test_gpu.py", "tests/test_paged_gpu.py",
              "tests/test_lean.py"],
    "quantize": [PYTHON, "benchmarks/quantize.py", "--device", "cuda"],
    "linear": [PYTHON, "benchmarks/linear.py", "--device", "cuda"],
    "memory": [PYTHON, "benchmarks/memory_gpu.py"],
    "t4": [PYTHON, "benchmarks/t4_gpu.py"],
    "recipe": [PYTHON, "benchmarks/recipe.py"],
    "recipe-t4": [PYTHON, "benchmarks/recipe.py", "--only", "ours", "--limit-gb", "15",
                  "--compute-dtype", "float16"],
    "paged": [PYTHON, "benchmarks/paged_gpu.py"],
    "chapters": [PYTHON, "docs/execute.py", "--flags", "gpu", *flagged_chapters()],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--list", action="store_true", help="name the steps, and end")
    wanted = parser.parse_args()
    unknown = set(wanted.steps) - set(STEPS)
    if unknown:
        parser.error(f"unknown step {min(unknown)!r}; known: {', '.join(STEPS)}")
    if wanted.list:
        return print(*(f"{name:10}{' '.join(map(str, step[1:]))}" for name, step in STEPS.items()),
                     sep="\n") or 0
    if not torch.cuda.is_available():
        print("these steps need an NVIDIA GPU that torch can see, and there is none; "
              "`make test` and `make bench` need none", file=sys.stderr)
        return 2
    print(torch.cuda.get_device_name(), "torch", torch.__version__, flush=True)
    outcome = {}
    with tempfile.TemporaryDirectory() as model:
        if "chapters" in (wanted.steps or STEPS):
            from t4_gpu import stand_in  # needs bitsandbytes, which --list does not

            stand_in(Path(model), read_shape("rinna/japanese-gpt-neox-3.6b"), torch.device("cuda"))
            torch.cuda.empty_cache()
        environment = os.environ | {"QLORA_NB_MODEL": model, "QLORA_NB_DATA": "micro"}
        for name in wanted.steps or STEPS:
            print(f"\n== {name}", flush=True)
            start = time.perf_counter()
            status = subprocess.run(STEPS[name], cwd=ROOT, env=environment).returncode
            outcome[name] = (status, time.perf_counter() - start)
    print("\n== what became of them")
    for name, (status, seconds) in outcome.items():
        print(f"{name:10}{'done' if status == 0 else f'FAILED ({status})':14}{seconds:8.1f} s")
    return int(any(status for status, _ in outcome.values()))


if __name__ == "__main__":
    sys.exit(main())
