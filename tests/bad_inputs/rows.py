"""Data files, row by row."""
import json

from bad_inputs import Bad, write_rows


def data(title, name, content: bytes, words):
    "A fine-tune on one file."
    return Bad(title, ["finetune", "--data", name], words,
               make=lambda folder: (folder / name).write_bytes(content))


def rows(title, content: list, words, *options):
    "The same on rows of JSON."
    return Bad(title, ["finetune", "--data", "rows.jsonl", *options], words,
               make=lambda folder: write_rows(folder / "rows.jsonl", content))


ASKED = [{"instruction": f"{number}は？", "output": "はい。"} for number in range(9)]
LONG = [{"instruction": f"{number}番です。" * 400, "output": "はい。"} for number in range(9)]

ROWS = [
    Bad("a data file that is not there", ["finetune", "--data", "missing.jsonl"],
        ["missing.jsonl"]),
    Bad("a folder in the place of a data file", ["finetune", "--data", "./rows.json"],
        ["rows.json is a folder"], make=lambda folder: (folder / "rows.json").mkdir()),
    data("an empty file", "empty.jsonl", b"", ["empty.jsonl"]),
    data("an empty list", "none.json", b"[]", ["none.json", "no row"]),
    data("a table with nothing below its first line", "head.csv", b"question,answer\n",
         ["head.csv", "no row"]),
    data("a file of plain text", "rows.txt", b"text", ["rows.txt", "jsonl"]),
    data("a file packed by a program that did not end", "rows.jsonl.gz",
         b"\x1f\x8b\x08\x00\x00\x00", ["rows.jsonl.gz", "cannot be read"]),
    data("a Parquet file that breaks off", "broken.parquet", b"PAR1 and no more",
         ["broken.parquet"]),
    data("a JSON line that breaks off", "broken.jsonl",
         b'{"instruction": "a", "output": "b"}\n{"instruction": "a", "output"\n',
         ["broken.jsonl", "line 2"]),
    data("a comma too few inside a JSON list", "comma.json",
         b'[\n{"instruction": "a",\n "output": "b"}\n{"instruction": "c"}\n]', ["line 4"]),
    data("JSON that is nested without an end", "deep.json", b"[" * 100_000, ["nested"]),
    data("a number that Python does not read", "digits.json", b"[" + b"9" * 5000 + b"]",
         ["digits.json, line 1"]),
    data("lines that hold no objects", "words.jsonl", '"空は？"\n"青です。"\n'.encode(),
         ["words.jsonl", "named columns"]),
    data("a CSV row with a field too few", "fields.csv", b"question,answer\na,b\nc\n",
         ["fields.csv, line 3"]),
    data("a quotation mark that is never closed", "quote.csv",
         b'question,answer\na,b\n"c,d\ne,f\ng,h\n', ["quote.csv, line 3"]),
    data("two columns of the same name", "twice.csv", b"question,answer,answer\na,b,c\n",
         ["twice.csv, line 1", "'answer'"]),
    data("a table in no encoding", "bytes.csv", "質問,回答\nあ,い\n".encode("cp932") + b"\x83\xff",
         ["bytes.csv, line 3", "cp932"]),
    rows("columns that nobody knows", [{"title": "a"}], ["title", "instruction", "answer"]),
    rows("a column that was named and is not there", [{"title": "a", "reply": "b"}],
         ["rows.jsonl", "titel", "reply, title"], "--columns", "question=titel,answer=reply"),
    rows("a named column without its name", ASKED, ["--columns", "'question'", "question=title"],
         "--columns", "question"),
    rows("a column that means nothing known", ASKED, ["'frage'", "question"],
         "--columns", "frage=instruction"),
    rows("two columns for one answer", ASKED, ["twice", "answer"],
         "--columns", "answer=output,answer=input"),
    rows("preference pairs without a question", [{"chosen": "a", "rejected": "b"}],
         ["a chosen answer and no question"]),
    rows("the same file twice", ASKED, ["rows.jsonl twice", "rows.jsonl:2"], "--data", "rows.jsonl"),
    rows("a weight that is no number", ASKED, ["'lots'", "above 0"], "--data", "other.jsonl:lots"),
    rows("a weight of nothing", ASKED, ["'0'", "above 0"], "--data", "other.jsonl:0"),
    rows("a second file that is not there", ASKED, ["other.jsonl"], "--data", "other.jsonl:2"),
    Bad("weights that leave nothing", ["finetune", "--data", "rows.jsonl:0.01"],
        ["rows.jsonl:0.01", "weights"],
        make=lambda folder: write_rows(folder / "rows.jsonl", ASKED)),
    rows("an answer that is a number", [{"instruction": "a", "output": 3}], ["int in 'output'"]),
    rows("no answer in any row", [{"instruction": "空は？", "output": ""}],
         ["rows.jsonl", "without an answer"]),
    rows("messages of roles that are not those of a dialogue",
         [{"messages": [{"role": "tool", "content": "a"}]}], ["role 'tool'"]),
    rows("messages that are one text", [{"messages": "a"}], ["str in 'messages'"]),
    rows("texts without a speaker", [{"text": "空は青い。"}], ["### Human:"]),
    rows("message trees whose roots are missing",
         [{"message_id": "b", "parent_id": "a", "role": "assistant", "text": "a"}],
         ["reply without its parent"]),
    rows("rows to train on that are all too long", LONG, ["too long"]),
    Bad("rows to evaluate with that are all too long",
        ["finetune", "--data", "rows.jsonl", "--eval-data", "long.jsonl"], ["every held-out row"],
        make=lambda folder: (write_rows(folder / "rows.jsonl", ASKED),
                             write_rows(folder / "long.jsonl", LONG))),
    rows("more rows held out than would be left", ASKED, ["--held-out 5", "9 conversations"],
         "--held-out", "5"),
    rows("one question under many answers", [{"instruction": "a", "output": json.dumps(number)}
                                             for number in range(20)], ["1 different first questions"]),
]
