"""What the benchmarks share: a clock, options, a limit of memory, runs made before."""
import argparse
import json
import logging
import shutil
import time
from pathlib import Path

import torch

from qlora_nb.core import versions

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def timing_parser(description: str, rounds: int, quick: str) -> argparse.ArgumentParser:
    "The options of a benchmark whose contestants take turns; `quick` says what --quick does."
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help=(
        "processor: seconds of work, for a machine that others use too, with --threads 1"))
    parser.add_argument("--quick", action="store_true", help=quick)
    return parser


def seeds_parser(description: str, seeds: int) -> argparse.ArgumentParser:
    "The options of a benchmark that trains with several seeds."
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=seeds, help="how many, from 0 on")
    return parser


def on_one_thread() -> None:
    "Train on one thread, whose seconds can be counted, and without the libraries' lines."
    from transformers.utils.logging import disable_progress_bar

    logging.disable(logging.WARNING)
    disable_progress_bar()
    torch.set_num_threads(1)


def seconds(function, device: torch.device, clock: str) -> float:
    "One call, from start to end."
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = CLOCKS[clock]()
    function()
    wait()
    return CLOCKS[clock]() - start


def limit_memory(gigabytes: float) -> None:
    "Let torch take no more than this of the GPU's memory."
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total))


def copy_tokenizer(folder: Path) -> None:
    "The micro model's tokenizer for a checkpoint of random weights."
    from qlora_nb.micro import micro_folder  # loads transformers, which most benchmarks do without

    for file in (micro_folder() / "model").iterdir():
        if "tokenizer" in file.name or file.suffix == ".model":
            shutil.copy(file, folder)


def stored_runs(path: Path) -> list[dict]:
    "The runs in a result file that were made with today's package versions."
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return old.get("runs", []) if old.get("versions") == versions() else []
