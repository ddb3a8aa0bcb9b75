"""What does `make finetune` change: the losses of its run, its exams, and answers before and after?

    python benchmarks/micro_run.py [--run FOLDER]

Runs `qlora-nb finetune` with nothing but its defaults, or reads a run that is there already, and
keeps of its record what the book's first page shows. Writes benchmarks/results/micro_run.json.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from qlora_nb.core import write_json

RESULTS = Path(__file__).parent / "results" / "micro_run.json"
EVERY = 8  # one answer in eight, in the order of the exam


def kept(folder: Path) -> dict:
    "The part of a run's record that is shown."
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {"machine": record["machine"], "versions": record["versions"],
            "exams": record["metrics"]["exams"], "answers": record["answers"][::EVERY],
            "history": [{key: row[key] for key in ("step", "loss", "eval_loss") if key in row}
                        for row in record["history"]]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="read this run, and make none")
    wanted = parser.parse_args()
    if wanted.run:
        return write_json(RESULTS, kept(wanted.run))
    with tempfile.TemporaryDirectory() as folder:
        command = Path(sys.executable).with_name("qlora-nb")
        subprocess.run([command, "finetune", "--output", f"{folder}/run"], check=True)
        write_json(RESULTS, kept(Path(folder) / "run"))


if __name__ == "__main__":
    main()
