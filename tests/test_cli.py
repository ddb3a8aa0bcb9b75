"""Every way to give the command something wrong: one sentence, status 2, nothing left behind."""
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import COMMAND, write_rows
from qlora_nb.cli import main
from qlora_nb.micro import micro_folder

ROW = {"instruction": "空は何色ですか。", "output": "空は青いです。"}


def refused(done, *words):
    "One sentence on standard error that holds `words`, status 2, no traceback."
    lines = [line for line in done.stderr.splitlines() if line.startswith("qlora-nb")]
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture
def model(tmp_path):
    "A copy of the micro model, to spoil."
    folder = tmp_path / "model"
    shutil.copytree(micro_folder() / "model", folder)
    return folder


def edit_json(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(content), encoding="utf-8")


def test_help_version_and_mistyped_words(command):
    assert "finetune" in command("--help").stdout
    assert "--learning-rate" in command("finetune", "--help").stdout
    assert command("--version").stdout[0].isdigit()
    refused(command("finetun"), "finetune")
    wrong = command("finetune", "--ranks", "3")
    assert wrong.returncode == 2 and "--ranks" in wrong.stderr
    wrong = command("finetune", "--quantization", "nf5")
    assert wrong.returncode == 2 and "nf4" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.parametrize("options, words", [
    (["--rank", "0"], ["--rank is 0"]),
    (["--rank", "4000"], ["--rank 4000", "at most"]),
    (["--target-modules", "q_proj"], ["q_proj", "query_key_value"]),
    (["--sequence-length", "100000"], ["context"]),
    (["--preset", "guanako"], ["guanaco"]),
    (["--model", "no/such/folder"], ["no/such/folder"]),
    (["--model", "./missing"], ["./missing"]),
    (["--data", "missing.jsonl"], ["missing.jsonl"]),
    (["--resume", "--overwrite"], ["--resume"]),
    (["--learning-rate", "nan"], ["--learning-rate"]),
])
def test_wrong_options(called, tmp_path, options, words):
    refused(called("finetune", *options, "--output", "run"), *words)
    assert not list(tmp_path.iterdir()), "a refused run must leave nothing behind"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU that is asked for")
def test_gpu_that_is_not_there(called):
    refused(called("finetune", "--device", "cuda"), "GPU")


def test_debug_shows_where_it_came_from(command):
    done = command("finetune", "--rank", "0", "--debug")
    assert "Traceback" in done.stderr and done.returncode != 0


class Hub(BaseHTTPRequestHandler):
    "A hub that is reachable and knows no repository."

    def do_GET(self):
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


def test_unknown_model_and_unreachable_hub(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    refused(command("finetune", "--model", "some/model"), "some/model", "network")
    refused(command("finetune", "--data", "some/data"), "some/data")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    refused(command("finetune", "--model", "some/model"), "some/model", "spelling")
    refused(command("finetune", "--model", "not a name"), "not a name")
    server.shutdown()


def test_models_that_are_refused(called, model):
    def finetune():
        return called("finetune", "--model", model)

    config = model / "config.json"
    original = config.read_text(encoding="utf-8")
    edit_json(config, model_type="llama")
    refused(finetune(), "llama", "GPT-NeoX")
    edit_json(config, model_type="gpt_neox", auto_map={"AutoModelForCausalLM": "code.Model"})
    refused(finetune(), "auto_map")
    config.write_text(original, encoding="utf-8")

    weights = load_file(model / "model.safetensors")
    name = "gpt_neox.layers.1.attention.dense.weight"
    weights[name][3, :5] = torch.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    refused(finetune(), "5 NaN", name)
    (model / "model.safetensors").write_bytes(b"\x00" * 100)
    refused(finetune(), "damaged")
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").touch()
    refused(finetune(), "pickle", "safetensors")


@pytest.mark.parametrize("name, content, words", [
    ("empty.jsonl", b"", ["empty.jsonl"]),
    ("columns.jsonl", b'{"a": 1}\n', ["instruction"]),
    ("broken.jsonl", b'{"instruction": "a", "output"\n', ["broken.jsonl"]),
    ("sjis.csv", "instruction,output\n空は何色ですか,空は青いです\n".encode("cp932") + b"\x83\xff",
     ["UTF-8", "cp932"]),
    ("number.jsonl", b'{"instruction": "a", "output": 3}\n', ["output"]),
    ("blank.jsonl", '{"instruction": "空は？", "output": ""}\n'.encode(), ["blank.jsonl"]),
    ("rows.txt", b"text", ["rows.txt", "jsonl"]),
    ("broken.parquet", b"PAR1 and no more", ["broken.parquet"]),
])
def test_data_that_is_refused(called, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    refused(called("finetune", "--data", name), *words)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_rows_that_are_all_too_long(called, tmp_path):
    write_rows(tmp_path / "long.jsonl", [{"instruction": f"{i}は？" * 200, "output": "長い。" * 200}
                                         for i in range(80)])
    refused(called("finetune", "--data", "long.jsonl"), "long")


def test_duplicates_and_bad_utf8_are_counted(tmp_path, command):
    rows = [ROW | {"instruction": f"{i}番目は何色ですか。"} for i in range(20)]
    path = write_rows(tmp_path / "rows.jsonl", rows + rows[:3])
    path.write_bytes(path.read_bytes() + b'{"instruction": "\xff\xfe", "output": "b"}\n')
    done = command("finetune", "--data", path, "--steps", 1, "--batch-size", 2, "--held-out", 2,
                   "--max-new-tokens", 2, "--output", "run")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["data"]
    assert "3 duplicate" in done.stderr and "1" in done.stderr
    assert 3 in report.values() or 3 in report.get("dropped", {}).values()


def test_finetune_generate_merge(command, tmp_path, model):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    done = command("finetune", "--steps", 6, "--eval-steps", 0, "--output", "run",
                   "--eval-data", micro_folder() / "rephrased.jsonl")
    assert done.returncode == 0, done.stderr
    for word in ("exact match", "loss", "tokens per second", "bytes", "trained parameters"):
        assert word in done.stdout
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "loss.png", "run.json"}
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["metrics"]["steps"] == 6 and record["versions"]["peft"]
    exam = record["metrics"]["exams"]["held-out"]
    assert exam["after"]["loss"] < exam["before"]["loss"]

    # peft alone loads it
    base = AutoModelForCausalLM.from_pretrained(micro_folder() / "model", dtype=torch.float32)
    ids = torch.arange(300, 320)[None]
    with torch.no_grad():
        plain = base(ids).logits
        adapted = PeftModel.from_pretrained(base, tmp_path / "run")(ids).logits
    assert not torch.equal(plain, adapted)

    question = record["answers"][0]["question"]
    answer = command("generate", "--adapter", "run", question)
    assert answer.stdout.strip() == record["answers"][0]["after"]
    piped = command("generate", "--adapter", "run", input=question + "\n")
    assert piped.stdout == answer.stdout
    merged = command("merge", "--adapter", "run", "--output", "merged")
    assert merged.returncode == 0, merged.stderr
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert again.dtype is torch.float16

    # another base with the same shapes, shapes that differ, and damage
    weights = load_file(model / "model.safetensors")
    save_file({k: v + 1 if k.endswith("norm.bias") else v for k, v in weights.items()},
              model / "model.safetensors", metadata={"format": "pt"})
    refused(command("generate", "--adapter", "run", "--model", model, "a"), "trained on")
    refused(command("merge", "--adapter", "run", "--output", "merged"), "--overwrite")
    refused(command("generate", "--adapter", "nowhere", "a"), "nowhere")
    (tmp_path / "run" / "run.json").unlink()
    edit_json(tmp_path / "run" / "adapter_config.json", r=4)
    refused(command("generate", "--adapter", "run", "--model", "micro", "a"), "does not fit")
    file = tmp_path / "run" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    refused(command("generate", "--adapter", "run", "--model", "micro", "a"), "damaged")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, small_data):
    """A tiny adapter; its run ended with standard output in the code page of Windows in Japan, on a
    full disk, and with a reader of its progress that left at once."""
    folder = tmp_path_factory.mktemp("patient") / "run"
    line = [*COMMAND, "finetune", "--data", small_data, "--steps", 2, "--batch-size", 4,
            "--held-out", 2, "--max-new-tokens", 2, "--eval-steps", 0, "--output", folder]
    said = folder.with_name("status")
    done = subprocess.run(["bash", "-c", f'({{ "$@" >/dev/full; echo $? >{said}; }} 2>&1) | true',
                           "-", *map(str, line)], timeout=600)
    assert done.returncode == 0 and said.read_text() == "0\n"
    assert (folder / "run.json").is_file()
    return folder


def test_a_run_keeps_its_result_and_status_without_listeners(adapter):
    assert not adapter.with_name("run.partial").exists()


@pytest.mark.parametrize("encoding, shown", [("cp932", "空"), ("ascii", "\\u7a7a")])
def test_an_encoding_that_lacks_characters(encoding, shown, adapter, monkeypatch):
    from rich.console import Console

    from qlora_nb.cli import answers_table, numbers_table, patient_streams

    record = json.loads((adapter / "run.json").read_text(encoding="utf-8"))
    record["answers"] += [{"question": "空の𩸽は？", "expected": "🍣 ✓", "before": "", "after": "a"}]
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", written)
    assert main(["memory", "micro"]) == 0
    assert main(["generate", "--adapter", str(adapter), "--max-new-tokens", "2", "空は？"]) == 0
    with patient_streams():
        Console().print(answers_table(record, rows=len(record["answers"])), numbers_table(record))
    written.flush()
    text = written.buffer.getvalue().decode(encoding)
    assert "total" in text and shown in text and "\\U00029e3d" in text and "?" not in text


def test_a_reader_that_leaves_and_streams_that_are_closed(adapter, tmp_path):
    script = f"""
    memory() {{ {COMMAND[0]} memory micro; }}
    (memory; echo "left $?" >&2) | true
    (memory; echo "full $?" >&2) >/dev/full
    (memory; echo "closed $?" >&2) <&- >&-
    export LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0
    {COMMAND[0]} generate --adapter {adapter} --max-new-tokens 2 札幌市はどこですか。 <&-
    echo "C $?" >&2
    """
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True,
                          encoding="utf-8", timeout=600)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr, done.stderr
    said = [line for line in done.stderr.splitlines() if line[-1:].isdigit()]
    assert said == ["left 0", "full 2", "closed 0", "C 0"], done.stderr
    assert "cannot be written (No space left on device)" in done.stderr and done.stdout.strip()


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_a_reader_of_answers_that_leaves(command, adapter, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", open(writer, "w", encoding="utf-8"))
    monkeypatch.setattr(sys, "stdin", asked := io.StringIO("空は？\n" * 4))
    assert main([command, "--adapter", str(adapter), "--max-new-tokens", "2"]) == 0
    assert bool(asked.read()) == (command == "chat"), "a chat ends with its first unheard answer"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp932"])
def test_questions_in_the_encodings_of_pipes(encoding, adapter, called, monkeypatch):
    "As PowerShell and Windows in Japan write them; the stream says which code page is set."
    lines = "札幌市はどこですか。\r\n\r\n空は何色ですか。\r\n"
    asked = io.TextIOWrapper(io.BytesIO(lines.encode(encoding)), errors="surrogateescape",
                             encoding="cp932" if encoding == "cp932" else "utf-8")
    monkeypatch.setattr(sys, "stdin", asked)
    options = ["generate", "--adapter", adapter, "--max-new-tokens", 4]
    piped = called(*options)
    typed = called(*options, "札幌市はどこですか。", "空は何色ですか。")
    assert piped.returncode == 0 and piped.stdout == typed.stdout, piped.stderr
