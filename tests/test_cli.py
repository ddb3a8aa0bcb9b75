"""Every way to give the command something wrong: one sentence, status 2, nothing left behind."""
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import COMMAND, write_rows
from qlora_nb.cli import COMMANDS, check_push, main, model_card, parse
from qlora_nb.micro import micro_folder
from qlora_nb.options import FinetuneOptions, resolve

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


@pytest.mark.parametrize("command", COMMANDS)
def test_help_reads_well(command, called):
    page = called(command, "--help")
    assert page.returncode == 0 and page.stdout == called("help", command).stdout
    lines = page.stdout.splitlines()
    assert max(map(len, lines)) <= 79
    assert lines[-3] == "examples:" and all(f"  qlora-nb {command}" in line for line in lines[-2:])
    entries = re.split(r"\n(?=  -)", page.stdout)[1:]
    assert len(entries) >= 5
    for entry in entries:
        assert entry.count("default:") <= 1 and "None" not in entry, entry
        assert "_" not in entry.split()[0], entry
    flags = re.findall(r"^  (?:-\w, )?(--[\w-]+)", page.stdout, re.M)
    assert len(flags) == len(set(flags))


def test_help_shows_presets_and_what_turns_a_switch_off(called):
    page = " ".join(called("finetune", "-h").stdout.split())
    assert "--rank N LoRA rank r (default: 8 micro, 16 standard, 64 guanaco)" in page
    assert "--no-packing give each example a row of its own" in page and " --packing" not in page
    assert "--gradient-checkpointing, --no-gradient-checkpointing" in page


def test_version_and_usage(called):
    for spelling in ("--version", "-V", "version"):
        assert called(spelling).stdout[0].isdigit()
    pages = {called(*spelling).stdout for spelling in [(), ("--help",), ("-h",), ("help",)]}
    assert len(pages) == 1 and all(command in pages.copy().pop() for command in COMMANDS)


@pytest.mark.parametrize("line, meant", [
    ("finetun", "finetune"), ("finetune --lr 1e-4", "--learning-rate?"),
    ("finetune --learnin-rate 1", "--learning-rate?"), ("finetune --lora-r 8", "--rank?"),
    ("finetune --model_name_or_path a", "--model?"), ("finetune --batch 8", "--batch-size?"),
    ("generate --adaptor a", "--adapter?"), ("merge --out a", "--output?"),
    ("finetune --dryrun", "--dry-run?"), ("memory micro --gpus T4", "--gpu?"),
    ("finetune --zzz", "help finetune lists"),
])
def test_what_was_meant(line, meant, called):
    refused(called(*line.split()), meant)


def test_what_needs_no_model_is_said_before_torch_is_loaded(tmp_path):
    "Help, wrong options, missing files, folders that are taken: none waits for torch."
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    lines = ["--version", "--help", "finetune --help", "finetun", "finetune --lr 1",
             "finetune --rank 0", "finetune --preset guanako", "finetune --data missing.jsonl",
             "finetune --eval-data missing.csv", "finetune --model ./missing",
             "finetune --output run", "generate", "generate a", "generate --top-p 5 a", "chat",
             "merge", "merge --adapter run --output run", "memory micro", "runs", "runs run",
             "push run a", "push run a/b", "finetune --config missing.json", "evaluate",
             "evaluate --judge gpt-4", "evaluate --adapter ./run --questions missing.txt"]
    script = "\n".join([
        "import sys", "from qlora_nb.cli import main",
        f"for line in {lines!r}:",
        "    assert main(line.split()) in (0, 2), line",
        "    loaded = {'torch', 'transformers', 'peft', 'datasets', 'matplotlib'} & set(sys.modules)",
        "    assert not loaded, (line, loaded)",
    ])
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("qlora-nb: ") == 21, done.stderr


def test_words_between_options_and_underscores(monkeypatch):
    typed = parse("generate", ["一", "--max_new_tokens", "3", "二", "--seed=4", "a_b"])
    assert typed.words == ["一", "二", "a_b"]
    assert (typed.options.max_new_tokens, typed.options.seed) == (3, 4)
    assert typed.given == {"max_new_tokens", "seed"}
    assert parse("memory", ["micro", "--gpu", "T4,L4", "--gpu", "24GB"]).options.gpu == [
        "T4,L4", "24GB"]
    switched = parse("finetune", ["--no-packing", "--double-quantization"]).options
    assert (switched.packing, switched.double_quantization) == (False, True)


def test_a_record_is_a_configuration(tmp_path):
    chosen = asdict(resolve(FinetuneOptions(rank=4, epochs=2, packing=False, output="gone")))
    record = tmp_path / "run.json"
    record.write_text(json.dumps({"options": chosen | {"of_a_later_version": 1}}))
    again = parse("finetune", ["--config", str(record)]).options
    assert resolve(again) == replace(FinetuneOptions(**chosen), output=None)
    typed = parse("finetune", ["--config", str(record), "--steps", "3", "--packing"]).options
    assert (typed.steps, typed.packing, typed.rank) == (3, True, 4)
    record.write_text(json.dumps({"options": chosen | {"steps": 70}}))
    assert parse("finetune", ["--config", str(record), "--epochs", "1"]).options.steps is None
    plain = tmp_path / "plain.json"
    plain.write_text('{"learning-rate": 1, "output": "here", "packing": false}', encoding="utf-8")
    typed = parse("finetune", ["--config", str(plain), "--learning-rate", "0.5"]).options
    assert (typed.learning_rate, typed.output, typed.packing) == (0.5, "here", False)


def test_a_dry_run_says_it_all_and_writes_nothing(called, small_data, tmp_path):
    done = called("finetune", "--data", small_data, "--epochs", 2, "--batch-size", 4, "--rank", 4,
                  "--dry-run")
    assert done.returncode == 0 and not list(tmp_path.iterdir()), done.stderr
    said = " ".join(done.stdout.split())
    for words in ("rank │ 4", "output │ runs/micro", "learning-rate │ 0.004", "optimizer states",
                  "total", "steps of 4 rows", "time: about", "nothing was written"):
        assert words in said, done.stdout


def test_memory_of_several_models_on_several_gpus(called):
    models = ["rinna/japanese-gpt-neox-3.6b", "micro"]
    done = called("memory", *models, "--gpu", "t4,24GB", "--gpu", "A10", "--json")
    answer = json.loads(done.stdout)
    assert [entry["model"] for entry in answer] == models
    for entry in answer:
        assert list(entry["gpus"]) == ["T4", "24GB", "A10"]
        assert entry["gpus"]["24GB"]["bytes"] == 24 * 10**9
        assert entry["total"] == sum(entry["parts"].values())
        assert all(held["fits"] for held in entry["gpus"].values())
    table = called("memory", *models, "--gpu", "24GB", "--gpu", "T4").stdout
    assert all(model in table for model in models)
    assert table.count("24GB") == table.count("T4 ") == 2


def test_runs_are_listed(adapter, called, tmp_path):
    shutil.copytree(adapter, tmp_path / "runs" / "first")
    shutil.copytree(adapter, tmp_path / "runs" / "other")
    other = json.loads((adapter / "run.json").read_text(encoding="utf-8"))
    other["options"] |= {"rslora": True, "dora": True, "init": "eva", "lora_plus": 2.0, "rank": 4}
    (tmp_path / "runs" / "other" / "run.json").write_text(json.dumps(other))
    (tmp_path / "runs" / "second.partial").mkdir()
    (tmp_path / "runs" / "second.partial" / "options.json").write_text(
        '{"model": "micro", "data": "rows.jsonl"}')
    (tmp_path / "runs" / "third").mkdir()
    (tmp_path / "runs" / "third" / "run.json").write_text("{}")
    listed = {row["run"]: row for row in json.loads(called("runs", "--json").stdout)}
    assert {name: row["state"] for name, row in listed.items()} == {
        "runs/first": "finished", "runs/other": "finished", "runs/second": "not finished",
        "runs/third": "damaged"}
    assert [listed[f"runs/{name}"]["adapter"] for name in ("first", "other", "second")] == [
        "LoRA 8", "rsDoRA+ 4 +eva", None]
    record = json.loads((adapter / "run.json").read_text(encoding="utf-8"))
    after = record["metrics"]["exams"]["held-out"]["after"]
    assert listed["runs/first"]["loss"] == after["loss"]
    table = called("runs").stdout
    for word in ("runs/first", "not finished", "damaged", f"{after['loss']:.3f}", "rows.jsonl"):
        assert word in table


def test_a_push_says_what_it_would_upload(adapter, called, tmp_path, monkeypatch):
    record = json.loads((adapter / "run.json").read_text(encoding="utf-8"))
    card = called("push", adapter, "owner/name", "--card-only").stdout
    exam = record["metrics"]["exams"]["held-out"]
    for words in ("library_name: peft", "# name", record["options"]["data"], "| rank | 8 |",
                  f"{exam['after']['loss']:.3f}", f"{exam['after']['exact_match']:.1%}",
                  f"peft {record['versions']['peft']}"):
        assert words in card
    files, _ = check_push(adapter, "owner/name")
    assert [file.name for file in files] == [
        "adapter_config.json", "adapter_model.safetensors", "loss.png"]
    folder = shutil.copytree(adapter, tmp_path / "with a tokenizer")
    own = [folder / "chat_template.jinja", folder / "additional_chat_templates" / "tools.jinja"]
    for file in own:  # as transformers writes a tokenizer with more than one template
        file.parent.mkdir(exist_ok=True)
        file.write_text("{{ messages }}")
    assert {*check_push(folder, "owner/name")[0]} - {folder / file.name for file in files} == {*own}
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    refused(subprocess_push(adapter, tmp_path, HF_TOKEN=""), "logged in")
    refused(subprocess_push(adapter, tmp_path, HF_TOKEN="hf_none"), "cannot be reached")


def subprocess_push(adapter, folder, **environment):
    "A push to a hub where nobody listens: the library reads its environment when it is imported."
    return subprocess.run(
        [*COMMAND, "push", adapter, "owner/name"], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9"} | environment, timeout=120)


def test_several_answers_stand_below_their_questions(adapter, called):
    options = ["generate", "--adapter", adapter, "--max-new-tokens", 4]
    first, second = (called(*options, question).stdout for question in ("空は？", "海は？"))
    both = called(*options, "空は？", "海は？").stdout
    assert both == f"> 空は？\n{first}> 海は？\n{second}"
    assert called(*options, "-q", "空は？", "海は？").stdout == first + second


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


def test_unknown_model_and_unreachable_hub(called, command, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    refused(command("finetune", "--model", "some/model"), "some/model", "network")
    refused(command("finetune", "--data", "some/data"), "some/data")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    refused(command("finetune", "--model", "some/model"), "some/model", "spelling")
    refused(called("finetune", "--model", "not a name"), "not a name")
    server.shutdown()


def test_models_that_are_refused(called, model):
    def finetune():
        return called("finetune", "--model", model)

    config = model / "config.json"
    original = config.read_text(encoding="utf-8")
    edit_json(config, model_type="t5")
    refused(finetune(), "t5", "GPT-NeoX", "Llama")
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


def test_duplicates_and_bad_utf8_are_counted(tmp_path, called):
    rows = [ROW | {"instruction": f"{i}番目は何色ですか。"} for i in range(20)]
    path = write_rows(tmp_path / "rows.jsonl", rows + rows[:3])
    path.write_bytes(path.read_bytes() + b'{"instruction": "\xff\xfe", "output": "b"}\n')
    done = called("finetune", "--data", path, "--steps", 1, "--batch-size", 2, "--held-out", 2,
                  "--max-new-tokens", 2, "--output", "run")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["data"]
    assert "3 duplicate" in done.stderr and "1" in done.stderr
    assert 3 in report.values() or 3 in report.get("dropped", {}).values()


def test_several_files_are_mixed_recorded_and_listed(tmp_path, called, small_data):
    titled = [{"title": f"{i}番目は何色ですか。", "reply": "青です。"} for i in range(10)]
    write_rows(tmp_path / "own.jsonl", titled)
    done = called("finetune", "--data", "own.jsonl:3", "--data", small_data, "--columns",
                  "question=title,answer=reply", "--steps", 1, "--batch-size", 2, "--held-out", 2,
                  "--max-new-tokens", 2, "--output", "runs/mixed")
    assert done.returncode == 0, done.stderr
    assert "own.jsonl: 10 rows, each 3 times" in done.stderr
    record = json.loads((tmp_path / "runs" / "mixed" / "run.json").read_text(encoding="utf-8"))
    both = ["own.jsonl:3", str(small_data)]
    assert record["options"]["data"] == record["plan"]["data"] == both
    sources = record["data"]["sources"]
    assert [(one["data"], one["weight"], one["rows"]) for one in sources] == [
        ("own.jsonl", 3, 10), (str(small_data), 1, 120)]
    assert all(len(one["sha256"]) == 64 for one in sources)
    assert json.loads(called("runs", "--json").stdout)[0]["data"] == both
    assert "own.jsonl:3" in called("runs").stdout
    assert "`own.jsonl:3` and `" in model_card(record, "owner/name")


def test_finetune_generate_merge(called, command, tmp_path, model):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    done = called("finetune", "--steps", 6, "--eval-steps", 0, "--output", "run",
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
    answer = called("generate", "--adapter", "run", question)
    assert answer.stdout.strip() == record["answers"][0]["after"]
    piped = command("generate", "--adapter", "run", input=question + "\n")  # another process
    assert piped.stdout == answer.stdout
    merged = called("merge", "--adapter", "run", "--output", "merged")
    assert merged.returncode == 0, merged.stderr
    alone = called("generate", "--model", "merged", question)
    assert alone.stdout == answer.stdout, alone.stderr
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert again.dtype is torch.float16

    # another base with the same shapes, shapes that differ, and damage
    weights = load_file(model / "model.safetensors")
    save_file({k: v + 1 if k.endswith("norm.bias") else v for k, v in weights.items()},
              model / "model.safetensors", metadata={"format": "pt"})
    refused(called("generate", "--adapter", "run", "--model", model, "a"), "trained on")
    refused(called("merge", "--adapter", "run", "--output", "merged"), "--overwrite")
    refused(called("generate", "--adapter", "nowhere", "a"), "nowhere")
    (tmp_path / "run" / "run.json").unlink()
    edit_json(tmp_path / "run" / "adapter_config.json", r=4)
    refused(called("generate", "--adapter", "run", "--model", "micro", "a"), "does not fit")
    file = tmp_path / "run" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    refused(called("generate", "--adapter", "run", "--model", "micro", "a"), "damaged")


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


def test_a_model_without_an_adapter(adapter, called, tmp_path, monkeypatch):
    options = ["--max-new-tokens", 6]
    plain = called("generate", "--model", "micro", *options, "空は何色ですか。")
    assert plain.returncode == 0 and plain.stdout.strip(), plain.stderr
    assert called("merge", "--adapter", adapter, "--output", "merged").returncode == 0
    merged = called("generate", "--model", "merged", *options, "空は何色ですか。")
    adapted = called("generate", "--adapter", adapter, *options, "空は何色ですか。")
    assert merged.stdout == adapted.stdout, merged.stderr
    monkeypatch.setattr(sys, "stdin", io.StringIO("空は何色ですか。\n"))
    assert called("chat", "--model", "merged", *options).stdout == merged.stdout
    card = called("push", "merged", "owner/name", "--card-only").stdout
    assert "library_name: transformers" in card and "merged model" in card
    assert called("runs", ".").stdout == "no runs below .\n"


@pytest.mark.parametrize("typed, offered", [
    ("qlora-nb mem", ["memory"]), ("qlora-nb finetune --learn", ["--learning-rate"]),
    ("qlora-nb finetune --quantization n", ["nf4", "none"]),
    ("qlora-nb memory --gp", ["--gpu"]), ("qlora-nb finetune --data row", ["rows.jsonl"]),
])
def test_a_shell_completes(typed, offered, called, tmp_path):
    (tmp_path / "complete.sh").write_text(called("completion", "bash").stdout, encoding="utf-8")
    (tmp_path / "rows.jsonl").touch()
    words = typed.split(" ")
    script = (f"source ./complete.sh; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _qlora_nb; "
              'printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == offered, done.stderr


def test_a_wrong_word_costs_no_second_of_the_processor(tmp_path):
    "Measured on an idle core: 0.3 s; an import of torch alone takes more than 2."
    before = os.times()
    subprocess.run([*COMMAND, "--version"], cwd=tmp_path, capture_output=True, check=True)
    subprocess.run([*COMMAND, "finetune", "--rank", "0"], cwd=tmp_path, capture_output=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - \
        before.children_system
    assert spent / 2 < 1
