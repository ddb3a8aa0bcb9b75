"""`qlora-nb evaluate` with judges on real servers: good ones, and those that people meet."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from bad_inputs.adapters import A, B, adapter
from conftest import write_rows
from qlora_nb.journal import Journal
from qlora_nb.judge import Judge, read_verdict, server_url
from qlora_nb.micro import micro_folder
from qlora_nb.tokenizer import load_tokenizer

QUESTIONS = [{"question": text} for text in ("空は？", "海は？", "犬は？", "一足す一は？", "朝は？", "夜は？")]
ANSWERS = re.compile(r"=== Aの回答 ===\n(.*?)\n\n=== Bの回答 ===\n(.*?)\n\n=== 回答", re.S)


class Handler(BaseHTTPRequestHandler):
    "One server for all: `server.answer(path, body, headers)` says status and content."

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.respond(None)

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.respond(json.loads(raw))

    def respond(self, body):
        self.server.requests.append((self.path, body, dict(self.headers)))
        answer = self.server.answer(self.path, body, self.headers)
        if answer is None:  # it dies: no answer, and nobody is there any more
            self.close_connection = True
            threading.Thread(target=self.server.shutdown).start()
            return self.server.server_close()
        status, content = answer
        kind = "text/html" if isinstance(content, str) and content.startswith("<") else "application/json"
        raw = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_):
        "Nothing on the screen."


def said(content, finish="stop"):
    "A chat completion with this content."
    message = {"role": "assistant", "content": content}
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "judge",
                 "choices": [{"index": 0, "finish_reason": finish, "message": message}]}


def refusal(status, message):
    return status, {"error": {"message": message, "type": "invalid_request_error", "code": None}}


def longer(path, body, headers):
    "A judge that finds the longer answer better, as many do."
    if path.endswith("/models"):
        return 200, {"object": "list", "data": [{"id": "judge", "object": "model"}]}
    found = ANSWERS.search(body["messages"][0]["content"])
    if not found:
        return said("[[C]]")
    a, b = map(len, found.groups())
    return said(f"長い方を選びます。\n\n[[{'A' if a > b else 'B' if b > a else 'C'}]]")


def instead(chat, path, body, headers):
    "The same list of models, and `chat` for everything else."
    return longer(path, body, headers) if path.endswith("/models") else chat(body, headers)


@contextmanager
def serving(answer):
    "The URL of a server, and the server, within the block."
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.answer, server.requests = answer, []
    threading.Thread(target=partial(server.serve_forever, poll_interval=.02), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server
    finally:
        server.shutdown()
        server.server_close()


def asked(answer, prompt="?", **options):
    "What a judge that answers like this is understood to say."
    with serving(answer) as (url, _):
        return Judge(url, "judge", retries=0, **options).ask(prompt)


@pytest.fixture(scope="session")
def odd(tmp_path_factory):
    "An adapter that was never trained and changes what the micro model says."
    torch.manual_seed(0)
    weights = {A: torch.randn(4, 192) / 4, B: torch.randn(192, 4) / 4}
    return adapter(tmp_path_factory.mktemp("odd"), weights)


@pytest.fixture
def evaluate(called, odd, tmp_path):
    "The command on six questions, with a short answer from the odd adapter and from its base."
    write_rows(tmp_path / "q.jsonl", QUESTIONS)

    def run(*arguments):
        return called("evaluate", "--adapter", odd, "--questions", "q.jsonl", "--output", "made",
                      "--max-new-tokens", 6, "--quantization", "none", *arguments)
    return run


def test_a_judge_compares_in_both_orders(evaluate, tmp_path):
    with serving(longer) as (url, server):
        done = evaluate("--judge", url)
        assert done.returncode == 0, done.stderr
        requests = [body for path, body, _ in server.requests if path == "/v1/chat/completions"]
        again = evaluate("--judge", url, "--quiet")
        assert again.returncode == 0 and again.stdout == done.stdout
        assert len([path for path, _, _ in server.requests if "chat" in path]) == len(requests)
    result = json.loads((tmp_path / "made" / "judge.json").read_text(encoding="utf-8"))
    assert sum(result["counts"].values()) == 6 and result["counts"]["split"] == 0
    assert len(requests) == result["verdicts"] == 2 * (6 - result["same answer"]) > 0
    assert len({body["messages"][0]["content"] for body in requests}) == len(requests)
    assert "OPENAI_API_KEY" == result["options"]["judge_key"] and result["judge"]["model"] == "judge"
    assert "win rate of odd against base" in done.stdout and "unreadable" in done.stdout
    texts = {(row["side"], row["question"]): row["text"]
             for row in Journal(tmp_path / "made" / "answers.jsonl").rows}
    for i, outcome in enumerate(["won", "lost", "tie"]):
        count = sum((len(texts["a", q]) > len(texts["b", q]), len(texts["a", q]) < len(texts["b", q]),
                     len(texts["a", q]) == len(texts["b", q]))[i] for q in range(6))
        assert result["counts"][outcome] == count


def test_a_server_that_dies_and_comes_back(evaluate, tmp_path):
    left = [5]

    def dying(body, headers):
        left[0] -= 1
        return longer("", body, headers) if left[0] >= 0 else None

    with serving(partial(instead, dying)) as (url, _):
        done = evaluate("--judge", url, "--judge-parallel", 1)
    assert done.returncode == 2 and "same command again" in done.stderr, done.stderr
    assert done.stderr.count("qlora-nb: ") == 1 and "Traceback" not in done.stderr
    kept = tmp_path / "made" / "verdicts.jsonl"
    assert len(Journal(kept).rows) == 5
    kept.write_bytes(kept.read_bytes()[:-20])  # and the machine stopped while it wrote
    with serving(longer) as (url, server):
        done = evaluate("--judge", url, "--judge-model", "judge")
        assert done.returncode == 0, done.stderr
        chats = sum("chat" in path for path, _, _ in server.requests)
    result = json.loads((tmp_path / "made" / "judge.json").read_text(encoding="utf-8"))
    assert chats == result["verdicts"] - 4 and len(Journal(kept).rows) == result["verdicts"]
    with serving(longer) as (url, _):
        other = evaluate("--judge", url, "--judge-language", "en")
        assert other.returncode == 2 and "language was 'ja'" in other.stderr, other.stderr
        fresh = evaluate("--judge", url, "--judge-language", "en", "--overwrite")
        assert fresh.returncode == 0, fresh.stderr


def test_ctrl_c_says_what_is_kept(evaluate, tmp_path):
    left = [3]

    def interrupting(body, headers):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(.3)
        return longer("", body, headers)

    with serving(partial(instead, interrupting)) as (url, _):
        done = evaluate("--judge", url, "--judge-parallel", 1)
    kept = re.search(r"keeps 12 answers and (\d) verdicts; the same command goes on", done.stderr)
    assert done.returncode == 130 and kept, done.stderr
    assert 1 <= int(kept[1]) <= len(Journal(tmp_path / "made" / "verdicts.jsonl").rows) <= 3


def test_rubbish_is_unreadable_and_no_draw(evaluate, tmp_path):
    texts = iter(["どちらも良いです。", None, "", "[[A]] [[B]]", "<think>[[A]]", "[[A]]"] * 4)
    with serving(partial(instead, lambda body, headers: said(next(texts)))) as (url, _):
        done = evaluate("--judge", url, "--judge-parallel", 1)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "made" / "judge.json").read_text(encoding="utf-8"))
    judged = result["verdicts"] // 2
    assert result["counts"]["unreadable"] == judged and result["counts"]["tie"] == result["same answer"]
    assert set(result["faults"]) == {"said nothing", "no verdict in the text"}
    assert sum(result["faults"].values()) == sum(
        row["verdict"] == -1 for row in Journal(tmp_path / "made" / "verdicts.jsonl").rows)
    assert "could not be read" in done.stderr


@pytest.mark.parametrize("chat, words", [
    (lambda body, headers: refusal(401, "No key"), ["wants a key", "OPENAI_API_KEY", "No key"]),
    (lambda body, headers: refusal(404, "The model `judge` does not exist."),
     ["does not know judge", "ends with /v1"]),
    (lambda body, headers: refusal(400, "'x' is not a valid model ID: judge"), ["does not know judge"]),
    (lambda body, headers: (200, "<html>Log in</html>"), ["no chat completion", "<html>", "/v1"]),
    (lambda body, headers: (200, "{"), ["no chat completion", "/v1"]),
    (lambda body, headers: (200, {"object": "error"}), ["no chat completion"]),
    (lambda body, headers: refusal(429, "slow down"), ["asked too much", "slow down", "--judge-parallel 1"]),
    (lambda body, headers: refusal(500, "CUDA out of memory"), ["refused", "CUDA out of memory", "log"]),
    (lambda body, headers: time.sleep(.5) or said("late"), ["within 0.2 s", "--judge-timeout"]),
    (lambda body, headers: None, ["cannot be reached"]),
])
def test_servers_that_refuse(chat, words):
    with pytest.raises(ValueError) as caught:
        asked(partial(instead, chat), timeout=.2)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value


def test_settings_that_a_model_does_not_take():
    def chat(body, headers):
        if "max_tokens" in body:
            return refusal(400, "Unsupported parameter: 'max_tokens' is not supported with this model. "
                           "Use 'max_completion_tokens' instead.")
        if "temperature" in body:
            return refusal(400, "Unsupported value: 'temperature' does not support 0 with this model.")
        return said(json.dumps(sorted(body)))
    assert asked(partial(instead, chat)).text == '["max_completion_tokens", "messages", "model"]'


@pytest.mark.parametrize("answer, text, fault", [
    (said(None, "length"), "", "broke off"), (said("[[A]]", "length"), "[[A]]", "broke off"),
    (said(None), "", "said nothing"), (said("[[A]]", "content_filter"), "[[A]]", "refused"),
    (said([{"type": "text", "text": "[[B]]"}]), "[[B]]", ""),
    (refusal(400, "This model's maximum context length is 8192 tokens."), "", "refused: 400"),
])
def test_replies_without_a_verdict(answer, text, fault):
    reply = asked(partial(instead, lambda body, headers: answer))
    assert reply.text == text and reply.fault.startswith(fault) and bool(reply.fault) == bool(fault)


def test_the_key_is_sent_and_never_kept(evaluate, monkeypatch, tmp_path):
    def wants(path, body, headers):
        return longer(path, body, headers) if headers["Authorization"] == "Bearer s3cret" else \
            refusal(401, "Invalid key")
    with serving(wants) as (url, _):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        done = evaluate("--judge", url)
        assert done.returncode == 2 and "wants a key" in done.stderr and "OPENAI_API_KEY" in done.stderr
        monkeypatch.setenv("MY_KEY", "wrong")
        done = evaluate("--judge", url, "--judge-key", "MY_KEY")
        assert done.returncode == 2 and "refuses the key in MY_KEY" in done.stderr
        assert not (tmp_path / "made").exists()
        monkeypatch.setenv("MY_KEY", "s3cret")
        done = evaluate("--judge", url, "--judge-key", "MY_KEY")
    assert done.returncode == 0, done.stderr
    for file in (tmp_path / "made").iterdir():
        assert "s3cret" not in file.read_text(encoding="utf-8"), file


def test_who_cannot_be_asked_is_known_before_anything_is_loaded(evaluate, monkeypatch, tmp_path):
    with serving(longer) as (url, _):
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert Judge(url.removeprefix("http://"), None, retries=0).check() == "judge"
        monkeypatch.delenv("http_proxy")
    nobody = evaluate("--judge", url)
    assert nobody.returncode == 2 and "cannot be reached" in nobody.stderr and url in nobody.stderr

    def several(path, body, headers):
        names = [{"id": name} for name in ("one", "two")]
        return (200, {"data": names}) if path.endswith("models") else refusal(404, "no such model")

    with serving(several) as (url, _):
        for options, words in [((), ["--judge-model", "one, two"]),
                               (("--judge-model", "tow"), ["does not know tow", "one, two"])]:
            done = evaluate("--judge", url, *options)
            assert done.returncode == 2 and all(word in done.stderr for word in words), done.stderr
            assert done.stderr.count("qlora-nb: ") == 1


@pytest.mark.parametrize("typed, used", [
    ("localhost:8000", "http://localhost:8000/v1"), ("http://a:1/", "http://a:1/v1"),
    ("http://a:1/v1/", "http://a:1/v1"), ("https://a/api/v1/chat/completions", "https://a/api/v1"),
    ("https://a/v1beta/openai/", "https://a/v1beta/openai"),
])
def test_addresses(typed, used):
    assert server_url(typed) == used


def test_right_answers_need_no_judge(called, odd, tmp_path):
    done = called("evaluate", "--adapter", odd, "--questions", "micro", "--limit", 8, "--max-new-tokens", 4,
                  "--against", "none", "--output", "made")
    assert done.returncode == 0 and "right answers of odd" in done.stdout, done.stderr
    result = json.loads((tmp_path / "made" / "exact.json").read_text(encoding="utf-8"))
    assert result["questions"] == 8 and set(result["right"]) == {"a"}
    assert called("evaluate", "--show-prompt", "--judge-language", "en").stdout.count("[[A]]") == 1


@pytest.fixture(scope="module")
def transformers_server(tmp_path_factory):
    "`transformers serve` with the micro model: its process, its address and its model's name."
    folder = tmp_path_factory.mktemp("served") / "micro"
    shutil.copytree(micro_folder() / "model", folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = ("{% for turn in messages %}ユーザー: {{ turn['content'] }}<NL>{% endfor %}"
                               "システム: ")
    tokenizer.save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--host",
             "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with open(folder.parent / "log", "w+") as log:
        process = subprocess.Popen(serve, stdout=log, stderr=log,
                                   env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
        try:
            for _ in range(600):
                assert process.poll() is None, (folder.parent / "log").read_text()
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except OSError:
                    time.sleep(.2)
            yield process, f"http://127.0.0.1:{port}", str(folder)
        finally:
            process.kill()
            process.wait()


def test_transformers_own_server_judges_until_it_is_killed(evaluate, transformers_server, tmp_path):
    "Its verdicts are nonsense, as the micro model's must be: what is tried is the protocol."
    process, url, model = transformers_server
    short = ("--judge", url, "--judge-tokens", 24, "--judge-parallel", 1)
    other = evaluate(*short, "--judge-model", "gpt-4")
    assert other.returncode == 2 and "does not know gpt-4" in other.stderr, other.stderr
    done = evaluate(*short, "--judge-model", model, "--limit", 2)
    assert done.returncode == 0, done.stderr
    rows = Journal(tmp_path / "made" / "verdicts.jsonl").rows
    result = json.loads((tmp_path / "made" / "judge.json").read_text(encoding="utf-8"))
    assert len(rows) == result["verdicts"] == 2 * (2 - result["same answer"]) > 0
    for row in rows:
        assert row["verdict"] == {"A": 1, "B": 2, "tie": 3, None: -1}[
            None if row["fault"] else read_verdict(row["text"])]
    write_rows(tmp_path / "q.jsonl", [{"question": f"{n}足す{n}は？"} for n in range(20)])
    kept = tmp_path / "made" / "verdicts.jsonl"

    def kill():
        while not kept.exists() or kept.read_bytes().count(b"\n") < 2:
            time.sleep(.005)
        process.kill()

    threading.Thread(target=kill, daemon=True).start()
    done = evaluate(*short, "--judge-model", model, "--overwrite")
    assert done.returncode == 2 and "same command again" in done.stderr, done.stderr
    assert done.stderr.count("qlora-nb: ") == 1 and "Traceback" not in done.stderr
    assert len(Journal(kept).rows) >= 2
