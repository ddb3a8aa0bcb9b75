"""Evaluations that cannot be meant, and judges that are not there."""
from functools import partial
from pathlib import Path

from bad_inputs import Bad, write_rows
from bad_inputs.adapters import adapter

QUESTIONS = [{"question": "空は？"}, {"question": "海は？", "answer": "青いです。"}]


def made(folder: Path, *files: str) -> None:
    "An adapter, questions of which one has an answer, and files that something else has made."
    adapter(folder)
    write_rows(folder / "q.jsonl", QUESTIONS)
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def asked(title, *options, words, files=()) -> Bad:
    "An evaluation of the adapter `odd`."
    return Bad(title, ["evaluate", "--adapter", "odd", *options], words, partial(_make, files))


def _make(files, folder: Path) -> None:
    made(folder, *files)


ROWS = [
    asked("an evaluation without questions", words=["--questions"]),
    asked("questions that are not there", "--questions", "missing.txt", words=["missing.txt"]),
    asked("a file of questions with blank lines only", "--questions", "blank.txt",
          words=["blank.txt", "no question"], files=["blank.txt"]),
    asked("questions without answers, to be counted as right", "--questions", "q.jsonl",
          words=["1 of 2", "--judge"]),
    asked("an evaluation of no questions", "--limit", "0", words=["--limit is 0"]),
    asked("a judge by its model's name", "--judge", "gpt-4", words=["gpt-4", "--judge-model"]),
    asked("a key in the judge's URL", "--judge", "https://me:key@localhost/v1", words=["--judge-key"]),
    asked("a judge of one side", "--judge", "localhost:9", "--against", "none", words=["--against"]),
    asked("a judge that nobody can reach", "--judge", "http://127.0.0.1:9/v1", "--questions", "q.jsonl",
          words=["http://127.0.0.1:9/v1", "cannot be reached"]),
    asked("a judge with no time", "--judge", "localhost:9", "--judge-timeout", "0",
          words=["--judge-timeout is 0.0", "above 0"]),
    asked("an adapter to compare with that is not there", "--against", "./nowhere", "--questions", "micro",
          words=["nowhere"]),
    asked("an evaluation in a folder of something else", "--questions", "micro", "--output", "taken",
          words=["taken", "notes.txt", "--output"], files=["taken/notes.txt"]),
    asked("an evaluation in the place of a file", "--questions", "micro", "--output", "q.jsonl",
          words=["q.jsonl is a file"]),
    asked("tasks in a folder that is not there", "--tasks", "a", "--include-path", "nowhere",
          words=["nowhere", "YAML"]),
    asked("a list of tasks without a name", "--tasks", ",", words=["--tasks names no task"]),
]
