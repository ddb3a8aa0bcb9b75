"""What do two processes gain on the micro job over one with two threads, and what do they cost?

    python benchmarks/processes.py [--rounds 3] [--steps 40]

Contestants take turns: one process with two threads, two with one thread each, two that split the
model. Each is the command itself, so that starting up is counted too.
Writes benchmarks/results/processes.json.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from qlora_nb.core import machine, versions, write_json
from qlora_nb.micro import micro_folder

RESULTS = Path(__file__).parent / "results" / "processes.json"
CONTESTANTS = {
    "one process, two threads": (2, []),
    "two processes, one thread each": (1, ["--processes", "2"]),
    "two processes, split": (1, ["--processes", "2", "--shard"]),
}


def run(name: str, steps: int) -> dict:
    "Fine-tune once by the command, and read the record."
    threads, options = CONTESTANTS[name]
    rows = (micro_folder() / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "rows.jsonl").write_text("".join(rows[::4]), encoding="utf-8")
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "qlora_nb", "finetune", "--output", f"{folder}/run", "--quiet",
             "--device", "cpu", "--steps", str(steps), "--save-steps", "100000", "--eval-steps", "0",
             "--preset", "micro", "--data", f"{folder}/rows.jsonl", "--held-out", "4",
             "--max-new-tokens", "1", *options],
            check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
        wall = time.perf_counter() - start
        metrics = json.loads(Path(folder, "run", "run.json").read_text(encoding="utf-8"))["metrics"]
    each = metrics.get("each_process") or [metrics]
    return {"contestant": name, "tokens_per_second": metrics["tokens_per_second"],
            "peak_memory": [one["peak_memory"] for one in each],
            "base_bytes": [one["base_bytes"] for one in each],
            "seconds_to_first_step": metrics["seconds_to_first_step"], "seconds": wall}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    wanted = parser.parse_args()
    runs = []
    for _ in range(wanted.rounds):
        for name in CONTESTANTS:
            runs.append(run(name, wanted.steps))
            print(json.dumps(runs[-1]), flush=True)
    middle = {name: {key: median(one[key] for one in runs if one["contestant"] == name)
                     for key in ("tokens_per_second", "seconds_to_first_step", "seconds")}
              for name in CONTESTANTS}
    write_json(RESULTS, {"question": __doc__.splitlines()[0], "machine": machine(),
                         "versions": versions(), "steps": wanted.steps, "runs": runs, "median": middle})


if __name__ == "__main__":
    main()
