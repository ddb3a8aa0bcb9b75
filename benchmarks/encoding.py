"""How long is the way from a file to the first step, and how much of it is the tokenizer's own?

    python benchmarks/encoding.py [--rounds 5] [--clock processor] [--quick]

Two contestants take turns within one process: `encode_all`, which makes graded examples of dialogues,
and one plain call of the tokenizer for the very same texts, which is the least that it must take.
Then a new process fine-tunes on a large file of JSONL and tells when its first step begins, and how
much memory it has held above what it takes with everything imported and nothing read.
Writes benchmarks/results/encoding.json.
"""
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import torch

from common import seconds, timing_parser
from qlora_nb.core import machine, versions, write_json
from qlora_nb.data import FORMATS, encode_all
from qlora_nb.finetune import set_up, train
from qlora_nb.micro import micro_folder
from qlora_nb.options import FinetuneOptions
from qlora_nb.plan import make_plan
from qlora_nb.processor import MemoryWatch, anonymous_bytes
from qlora_nb.readers import conversations, read_rows
from qlora_nb.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results" / "encoding.json"
ROWS, MANY = 10_000, 200_000


def write_large(path: Path, count: int) -> None:
    "Rows of about 430 bytes, no two alike, of the micro world's questions and answers."
    shipped, rng = read_rows(micro_folder() / "train.jsonl"), random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            answers = "".join(rng.choice(shipped)["output"] for _ in range(7))
            row = {"instruction": f"{number}番。{rng.choice(shipped)['instruction']}", "input": "",
                   "output": answers}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def against_the_tokenizer(path: Path, rounds: int, clock: str) -> dict:
    "Seconds of both contestants; first their tokens are compared."
    tokenizer = load_tokenizer(micro_folder() / "model")
    form, talks = FORMATS["rinna"], conversations(read_rows(path))
    texts = [text for question, answer in talks for text in (
        f"{form.user}{question['content']}<NL>{form.assistant}", answer["content"])]

    def plain():
        return tokenizer(texts, add_special_tokens=False, split_special_tokens=True).input_ids

    def ours():
        return encode_all(talks, tokenizer, form, 512)

    parts = iter(plain())
    for example in ours():
        assert example["input_ids"] == [*next(parts), *next(parts), tokenizer.eos_token_id]
    times = {"encode_all": [], "plain": []}
    for _ in range(rounds):
        for name, call in [("plain", plain), ("encode_all", ours)]:
            times[name].append(seconds(call, torch.device("cpu"), clock))
    found = {name: {"median_s": round(statistics.median(all), 3), "minimum_s": round(min(all), 3)}
             for name, all in times.items()}
    for kind in ("median", "minimum"):
        ratio = found["encode_all"][f"{kind}_s"] / found["plain"][f"{kind}_s"]
        found[f"ratio_{kind}"] = round(ratio, 3)
    return {"rows": len(talks), "texts": len(texts)} | found


def first_step(path: str) -> None:
    "What a process sees that fine-tunes on the file; the answer is printed as JSON."
    process, idle = psutil.Process(), anonymous_bytes()
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(FinetuneOptions(data=path, steps=1, held_out=8, eval_steps=0))
        with MemoryWatch() as watch:
            setup = set_up(plan)
        trainer = train(setup, Path(folder) / "work")
    cpu = process.cpu_times()
    print(json.dumps({
        "seconds_to_first_step": round(trainer.clock.until_first, 1),
        "processor_seconds": round(cpu.user + cpu.system, 1), "idle_bytes": idle,
        "peak_above_idle_bytes": watch.peak - idle, "examples": len(setup.data.train)}))


def large_file(path: Path) -> dict:
    "The answer of a new process, and what it said while it worked."
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    done = subprocess.run([sys.executable, __file__, "--first-step", path], capture_output=True,
                          text=True, check=True)
    said = [line for line in done.stderr.splitlines() if " rows, " in line]
    found = json.loads(done.stdout.splitlines()[-1])
    return {"file_bytes": path.stat().st_size, "load_before": load, **found,
            "peak_to_file": round(found["peak_above_idle_bytes"] / path.stat().st_size, 2),
            "progress": said[-1:], "lines_of_progress": len(said)}


def main() -> None:
    options = timing_parser(__doc__.splitlines()[0], 5, "few rows, nothing is written").parse_args()
    rows, many = (500, 2000) if options.quick else (ROWS, MANY)
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small.jsonl", Path(folder) / "large.jsonl"
        write_large(small, rows)
        write_large(large, many)
        ratio = against_the_tokenizer(small, options.rounds, options.clock)
        print(ratio)
        whole = large_file(large)
        print(whole)
    if options.quick:
        return
    write_json(RESULTS, {
        "question": __doc__.splitlines()[0], "machine": machine(), "versions": versions(),
        "rounds": options.rounds, "clock": options.clock, "against_the_tokenizer": ratio,
        "large_file": whole})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--first-step"]:
        first_step(sys.argv[2])
    else:
        main()
