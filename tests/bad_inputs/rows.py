"""Data files, row by row."""
from bad_inputs import Bad


def data(title, name, content: bytes, words):
    "A fine-tune on one file."
    return Bad(title, ["finetune", "--data", name], words,
               make=lambda folder: (folder / name).write_bytes(content))


ROWS = [
    Bad("a data file that is not there", ["finetune", "--data", "missing.jsonl"],
        ["missing.jsonl"]),
    data("an empty file", "empty.jsonl", b"", ["empty.jsonl"]),
    data("columns that nobody knows", "columns.jsonl", b'{"a": 1}\n', ["instruction"]),
    data("a JSON line that breaks off", "broken.jsonl", b'{"instruction": "a", "output"\n',
         ["broken.jsonl", "1"]),
    data("an answer that is a number", "number.jsonl", b'{"instruction": "a", "output": 3}\n',
         ["output"]),
    data("no answer in any row", "blank.jsonl", '{"instruction": "空は？", "output": ""}\n'.encode(),
         ["blank.jsonl"]),
    data("a file of plain text", "rows.txt", b"text", ["rows.txt", "jsonl"]),
    data("a Parquet file that breaks off", "broken.parquet", b"PAR1 and no more",
         ["broken.parquet"]),
]
