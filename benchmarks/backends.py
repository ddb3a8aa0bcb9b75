"""Do our own layers train as bitsandbytes and peft do? The micro model's main job with both.

    python benchmarks/backends.py [--seeds 3]

Both backends train on the same rows in the same order from the same first adapter and answer the
same held-out questions. What a step costs is measured by benchmarks/linear.py.
Writes benchmarks/results/backends.json.
"""
import argparse
import json
import logging
import tempfile
from pathlib import Path

from qlora_nb.core import machine, versions, write_json
from qlora_nb.exam import evaluate
from qlora_nb.finetune import set_up, train
from qlora_nb.options import FinetuneOptions
from qlora_nb.plan import make_plan

RESULTS = Path(__file__).parent / "results" / "backends.json"


def run(backend: str, seed: int) -> dict:
    "Train once and ask every held-out question."
    plan = make_plan(FinetuneOptions(backend=backend, seed=seed, eval_steps=0, save_steps=100_000))
    setup = set_up(plan)
    with tempfile.TemporaryDirectory() as folder:
        trainer = train(setup, folder)
    exam = setup.data.exams["held-out"]
    found = evaluate(setup.model, setup.tokenizer, exam, plan.max_new_tokens, 128)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"backend": backend, "seed": seed, "exact_match": found["exact_match"],
            "loss": found["loss"], "answers": found["answers"], "train_losses": losses}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    wanted = parser.parse_args()
    logging.disable(logging.WARNING)
    runs, differences, same = [], [], []
    for seed in range(wanted.seeds):
        theirs, ours = (run(backend, seed) for backend in ("bitsandbytes", "reference"))
        pairs = list(zip(ours.pop("train_losses"), theirs.pop("train_losses")))
        differences.append(max(abs(a - b) for a, b in pairs))
        answers = list(zip(ours.pop("answers"), theirs.pop("answers")))
        same.append(sum(a == b for a, b in answers) / len(answers))
        runs += [theirs | {"last_train_loss": pairs[-1][1]}, ours | {"last_train_loss": pairs[-1][0]}]
        print(json.dumps([*runs[-2:], differences[-1], same[-1]]), flush=True)
    write_json(RESULTS, {
        "question": __doc__.splitlines()[0], "machine": machine(), "versions": versions(),
        "runs": runs, "largest_loss_difference": max(differences), "same_answers": min(same)})


if __name__ == "__main__":
    main()
