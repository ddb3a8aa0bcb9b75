"""`qlora-nb chat` as a process of its own: on a terminal, through a pipe, and with wrong input."""
import errno
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from conftest import COMMAND, write_rows
from qlora_nb.finetune import finetune
from qlora_nb.micro import micro_folder
from qlora_nb.options import FinetuneOptions
from qlora_nb.readers import read_rows

QUESTION = "札幌市はどの都道府県にありますか。"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "An adapter that has learned a little: twenty steps."
    folder = tmp_path_factory.mktemp("chat") / "run"
    finetune(FinetuneOptions(output=str(folder), data=str(micro_folder() / "train.jsonl"),
                             held_out=4, steps=20, eval_steps=0))
    return folder


class Keyboard:
    "A chat on a pseudo-terminal, and someone who types."

    def __init__(self, folder, *arguments):
        self.master, slave = pty.openpty()
        environment = os.environ | {"TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
        self.process = subprocess.Popen(
            [*COMMAND, "chat", *map(str, arguments)], stdin=slave, stdout=slave, stderr=slave,
            cwd=folder, env=environment, start_new_session=True, preexec_fn=take_terminal)
        os.close(slave)
        self.seen = b""

    def expect(self, pattern, seconds=120):
        "Read until the pattern appears; return what was read up to its end."
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text())):
            assert time.monotonic() < end, f"no {pattern!r} in {self.text()!r}"
            assert self.read(1), f"ended without {pattern!r}: {self.text()!r}"
        text, rest = self.text()[:found.end()], self.text()[found.end():]
        self.seen = rest.encode()
        return text

    def text(self):
        return self.seen.decode("utf-8", errors="ignore").replace("\r\n", "\n")

    def read(self, seconds):
        "Take what is there; False at the end."
        if select.select([self.master], [], [], seconds)[0]:
            try:
                part = os.read(self.master, 4096)
            except OSError as error:
                if error.errno != errno.EIO:  # the other side is closed
                    raise
                part = b""
            self.seen += part
            return bool(part)
        return True

    def type(self, text):
        os.write(self.master, text.encode())

    def interrupt(self, pattern):
        "Press Ctrl-C until the pattern appears: between prompt and read, Python misses a signal."
        for _ in range(20):
            time.sleep(.5)
            self.type("\x03")
            waited = time.monotonic() + 5
            while "Ctrl-D" not in self.text() and time.monotonic() < waited:
                self.read(.2)
            if "Ctrl-D" in self.text():
                break
        return self.expect(pattern, seconds=10)

    def ended(self):
        "Read to the end; return the rest and the exit status."
        while self.read(60):
            pass
        return self.text(), self.process.wait(60)


def take_terminal():
    "Make the slave side the session's terminal, so that Ctrl-C typed there becomes a signal."
    import fcntl
    import signal
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it


@pytest.fixture
def keyboard(tmp_path, run):
    made = []

    def start(*arguments):
        made.append(Keyboard(tmp_path, "--adapter", run, *arguments))
        return made[-1]
    yield start
    for chat in made:
        if chat.process.poll() is None:
            chat.process.kill()
        os.close(chat.master)


def test_a_conversation_on_a_terminal(keyboard, tmp_path):
    chat = keyboard("--temperature", 3, "--top-p", 1, "--max-new-tokens", 400)
    assert "loading" in chat.expect("> $")
    chat.type("/help\r")
    assert "/reset" in chat.expect("\n> $") and "Ctrl-C" not in chat.text()
    chat.type("空は？\r")
    chat.expect("空は？\n...")  # at this temperature the answer would go on for long
    chat.type("\x03")
    answer = chat.expect(r"\(stopped\)\n> $", seconds=20)
    assert "Traceback" not in answer
    chat.type("/save talk.json\r")
    chat.expect("saved in talk.json\n> $")
    chat.type("/reset\r")
    chat.expect("> $")
    chat.type("/save again.json\r")
    assert "nothing was said" in chat.expect("\n> $")
    chat.type("まちがい")  # Ctrl-C at the prompt gives the line up, not the chat
    chat.interrupt("Ctrl-D or /quit ends the chat.*\n> $")
    chat.type("/rest\r")
    assert "/reset" in chat.expect("did you mean.*\n> $")
    chat.type("\x04")
    rest, status = chat.ended()
    assert status == 0 and "Traceback" not in rest
    turns = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))[0]["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert turns[0]["content"] == "空は？" and turns[1]["content"] and "\ufffd" not in str(turns)


def test_through_a_pipe(called, command, run, monkeypatch):
    lines = f"{QUESTION}\n\n/reset\n{QUESTION}\n/wrong\n{QUESTION * 100}\n/quit\n{QUESTION}\n"
    done = command("chat", "--adapter", run, input=lines)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == 2 and answers[0] == answers[1] and answers[0].endswith("です。")
    wrong = [line for line in done.stderr.splitlines() if line.startswith("qlora-nb: ")]
    assert len(wrong) == 2 and "unknown command" in wrong[0] and "ask a shorter one" in wrong[1]
    generated = called("generate", "--adapter", run, QUESTION)
    assert generated.stdout.strip() == answers[0]
    typed = io.TextIOWrapper(io.BytesIO(f"{QUESTION}\n".encode()), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", typed)
    compared = called("chat", "--adapter", run, "--compare", "--backend", "reference")
    before, after = compared.stdout.splitlines()
    assert after == "after: " + answers[0] and before.startswith("before: ")
    assert before.removeprefix("before: ") != answers[0]


def test_two_adapters_answer_by_turns(called, run, tmp_path, monkeypatch):
    other, rows = tmp_path / "other", tmp_path / "rows.jsonl"
    asked = read_rows(micro_folder() / "train.jsonl")[:40]
    write_rows(rows, [{"instruction": row["instruction"], "output": "知りません。"} for row in asked])
    finetune(FinetuneOptions(output=str(other), data=str(rows), rank=4, held_out=4, steps=12,
                             batch_size=8, eval_steps=0))
    alone = {name: called("generate", "--adapter", name, QUESTION).stdout.strip()
             for name in (run, other)}
    assert len(set(alone.values())) == 2
    both = called("generate", "--adapter", run, "--adapter", other, QUESTION).stdout.splitlines()
    assert both == [f"{name.name}: {answer}" for name, answer in alone.items()]
    typed = io.TextIOWrapper(io.BytesIO(f"{QUESTION}\n".encode()), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", typed)
    talk = called("chat", "--adapter", run, "--adapter", other, "--compare").stdout.splitlines()
    assert talk[1:] == both and talk[0].startswith("base: ")
    assert talk[0].removeprefix("base: ") not in alone.values()
    lines = ["/adapter othr", "/adapter other", QUESTION, "/save talk.json", "/adapter all", QUESTION]
    typed = io.TextIOWrapper(io.BytesIO("\n".join([*lines, ""]).encode()), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", typed)
    done = called("chat", "--adapter", run, "--adapter", other)
    assert "unknown adapter 'othr'; did you mean other?" in done.stderr
    said = [line for line in done.stdout.splitlines() if "talk.json" not in line]
    assert said[0] == both[1] and [line.partition(": ")[0] for line in said] == ["other", "run", "other"]
    assert said[1] == both[0]  # who was not asked has heard nothing
    turns = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))[0]["messages"]
    assert turns[1]["content"] == alone[other]
    typed = io.TextIOWrapper(io.BytesIO(b"/adapter all\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", typed)
    assert "a second --adapter" in called("chat", "--adapter", run).stderr


def test_bytes_that_are_no_text_and_a_reader_that_leaves(run, tmp_path):
    chat = subprocess.run([*COMMAND, "chat", "--adapter", run], cwd=tmp_path, capture_output=True,
                          input=QUESTION.encode("cp932") + b"\n", timeout=300)
    assert b"not UTF-8" in chat.stderr and b"Traceback" not in chat.stderr and not chat.stdout
    left = subprocess.Popen([*COMMAND, "chat", "--adapter", run, "--max-new-tokens", "24"],
                            cwd=tmp_path, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, encoding="utf-8")
    left.stdin.write(QUESTION + "\n")
    left.stdin.flush()
    assert left.stdout.read(1)
    left.send_signal(signal.SIGTERM)
    assert left.wait(60) == -signal.SIGTERM
    left.stdin.close(), left.stdout.close(), left.stderr.close()


@pytest.mark.parametrize("options, words", [
    (["--adapter", "nowhere"], ["nowhere", "adapter_config.json"]),
    (["--adapter", "nowhere", "--temperature", "-1"], ["--temperature"]),
    (["--adapter", "nowhere", "--top-p", "5"], ["--top-p"]),
    (["--adapter", "nowhere", "--max-new-tokens", "0"], ["--max-new-tokens"]),
    (["--adaptor", "nowhere"], ["--adapter"]),
])
def test_wrong_options(called, options, words):
    done = called("chat", *options)
    lines = [line for line in done.stderr.splitlines() if line.startswith("qlora-nb")]
    assert done.returncode == 2 and len(lines) == 1 and "Traceback" not in done.stderr
    assert all(word in lines[0] for word in words), lines[0]


def test_plain_transformers_reads_the_merged_model(called, run, tmp_path):
    "In a process that can import neither this library nor peft nor bitsandbytes."
    merged = called("merge", "--adapter", run, "--output", "merged")
    assert merged.returncode == 0, merged.stderr
    script = "\n".join([
        "import sys",
        "sys.modules.update(dict.fromkeys(['qlora_nb', 'peft', 'bitsandbytes']))",
        "import torch",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "model = AutoModelForCausalLM.from_pretrained('merged', dtype=torch.float32).eval()",
        "tokenizer = AutoTokenizer.from_pretrained('merged')",
        f"text = 'ユーザー: {QUESTION}<NL>システム: '",
        "ids = tokenizer(text, add_special_tokens=False, return_tensors='pt')",
        "out = model.generate(**ids, max_new_tokens=24, do_sample=False)",
        "print(tokenizer.decode(out[0, ids['input_ids'].shape[1]:], skip_special_tokens=True))",
    ])
    done = subprocess.run([COMMAND[0].replace("qlora-nb", "python"), "-c", script], cwd=tmp_path,
                          text=True, capture_output=True, timeout=300)
    answer = called("generate", "--adapter", run, QUESTION)
    assert done.stdout and done.stdout == answer.stdout, done.stderr
