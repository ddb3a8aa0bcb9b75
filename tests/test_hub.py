"""The real client against a hub on this machine: downloads that break off."""
import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
import torch
from safetensors.torch import load_file, save_file

from qlora_nb.micro import micro_folder
from stand_ins import qwen
from test_cli import refused
from test_memory import CONFIG
from test_resume import in_mount

MODEL, WEIGHTS = "someone/micro", "model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    "Serves folders as repositories, as much of the hub's protocol as a snapshot needs."

    def __init__(self, models, datasets=None):
        self.folders = {"models": models, "datasets": datasets or {}}
        self.sent = {}  # file -> [(first byte, bytes sent)]
        self.cut_at = None  # of a file this large, send so much; then the network is gone
        self.gone = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(self, body=self.command == "GET")

            do_HEAD = do_GET

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request, body):
        path = unquote(urlsplit(request.path).path)
        if self.gone:
            return self.hang_up(request)
        found = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/[^/]+(/.*)?)?",
                             path)
        if found:
            return self.describe(request, *found.groups())
        found = re.fullmatch(r"/(?:(datasets)/|cdn/)?([^/]+/[^/]+)/(?:resolve/[^/]+/)?(.+)", path)
        folder = found and self.folders[found[1] or "models"].get(found[2])
        if not folder or not (folder / found[3]).is_file():
            return self.reply(request, 404, b"", {"X-Error-Code": "EntryNotFound" if folder
                                                  else "RepoNotFound", "X-Repo-Commit": COMMIT})
        file = folder / found[3]
        if file.suffix == ".safetensors" and not path.startswith("/cdn/"):  # large files live elsewhere
            return self.reply(request, 302, b"", {
                "Location": f"{self.url}/cdn/{found[2]}/{found[3]}", "X-Repo-Commit": COMMIT,
                "X-Linked-Size": str(file.stat().st_size), "X-Linked-ETag": f'"{self.etag(file)}"'})
        self.send(request, file, body)

    def describe(self, request, kind, name, what, below):
        folder = self.folders[kind].get(name)
        if folder is None:
            return self.reply(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        names = [file.relative_to(folder).as_posix() for file in files]
        about = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
        if what == "tree":
            about = [{"type": "file", "path": name, "size": file.stat().st_size,
                      "oid": self.etag(file)[:40]} for name, file in zip(names, files)]
            for entry, file in zip(about, files):
                if file.suffix == ".safetensors":
                    entry["lfs"] = {"oid": self.etag(file), "size": entry["size"],
                                    "pointerSize": 134}
        self.reply(request, 200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def etag(file):
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def send(self, request, file, body):
        content = file.read_bytes()
        first = int((re.match(r"bytes=(\d+)-", request.headers.get("Range") or "") or [0, 0])[1])
        headers = {"ETag": f'"{self.etag(file)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self.reply(request, 206 if first else 200, content[first:], headers, body, file.name)

    def reply(self, request, status, content, headers, body=True, name=None):
        request.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            request.send_header(key, value)
        request.end_headers()
        cut = self.cut_at is not None and len(content) > self.cut_at
        part = content[:self.cut_at] if cut else content
        if not body:
            return
        request.wfile.write(part)
        if name:
            first = int((request.headers.get("Range") or "bytes=0-")[6:-1])
            self.sent.setdefault(name, []).append((first, len(part)))
        if cut:
            self.gone = self.lasting
            self.hang_up(request)

    def hang_up(self, request):
        request.wfile.flush()
        request.close_connection = True
        request.connection.close()

    def cut(self, at, lasting=True):
        "Cut the next large file there; for good, or so that the next request is answered again."
        self.cut_at, self.lasting, self.gone = at, lasting, False

    def mend(self):
        self.cut_at, self.gone = None, False


@pytest.fixture
def hub(tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    served = tmp_path / "served"
    shutil.copytree(micro_folder() / "model", served)
    # The client writes 10 MiB at a time: a mask, as files of 2023 hold them, makes this one larger.
    mask = {"gpt_neox.layers.0.attention.bias": torch.zeros(1, 1, 2**11, 2**12)}
    weights = load_file(served / WEIGHTS) | mask
    save_file(weights, served / WEIGHTS, metadata={"format": "pt"})
    rows = tmp_path / "rows"
    rows.mkdir()
    lines = (micro_folder() / "train.jsonl").read_text(encoding="utf-8").splitlines()[:120]
    (rows / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    hub = Hub({MODEL: served}, {"someone/rows": rows})
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


RUN = ["finetune", "--model", MODEL, "--preset", "micro", "--steps", "2", "--batch-size", "4",
       "--max-new-tokens", "2", "--held-out", "2", "--eval-steps", "0", "--device", "cpu",
       "--output", "run"]


def test_a_download_that_breaks_off_is_repeated_by_the_same_command(hub, command, tmp_path,
                                                                    small_data):
    run, size = [*RUN, "--data", str(small_data)], (tmp_path / "served" / WEIGHTS).stat().st_size
    hub.cut(at=25_000_000)
    done = command(*run)
    refused(done, "download", MODEL, "broke off", "run the same command again")
    assert hub.sent[WEIGHTS] == [(0, 25_000_000)]
    assert not (tmp_path / "run").exists() and not (tmp_path / "run.partial").exists()

    refused(command(*run), MODEL, "network")  # still nobody there
    assert hub.sent[WEIGHTS] == [(0, 25_000_000)]

    before = {name: len(sent) for name, sent in hub.sent.items()}
    hub.mend()
    done = command(*run)
    assert done.returncode == 0, done.stderr
    assert hub.sent[WEIGHTS][1:] == [(0, size)]
    assert {name: len(sent) for name, sent in hub.sent.items()} == before | {WEIGHTS: 2}
    stored = [file for file in (tmp_path / "home").rglob("*") if file.stat().st_size == size]
    assert hub.etag(stored[0]) == hub.etag(tmp_path / "served" / WEIGHTS)
    assert not list((tmp_path / "home").rglob("*.incomplete"))

    ask = ["generate", "--adapter", "run", "--max-new-tokens", "2", "札幌市は？"]
    hub.gone = True  # from here on the cache is enough, whether connections are cut or refused
    assert command(*ask).returncode == 0
    hub.server.shutdown()
    hub.server.server_close()
    answer = command(*ask)
    assert answer.returncode == 0, answer.stderr


def test_a_short_interruption_is_bridged(hub, command, tmp_path, small_data):
    hub.cut(at=25_000_000, lasting=False)
    done = command(*RUN, "--data", small_data)
    assert done.returncode == 0, done.stderr
    assert [first for first, _ in hub.sent[WEIGHTS]] == [0, 2 * 10 * 2**20]


def test_what_is_small_tells_whether_the_weights_are_wanted(hub, command, tmp_path, small_data,
                                                            monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "served" / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    large = ["finetune", "--model", MODEL, "--data", small_data]
    refused(command(*large, "--epochs", 100), "days on this processor")
    refused(command(*large[:3], "--data", "missing.jsonl", "--device", "cpu"), "missing.jsonl")
    assert "config.json" in hub.sent and WEIGHTS not in hub.sent


def test_a_data_set_that_breaks_off_is_fetched_again_and_then_kept(hub, command, tmp_path):
    run = [*RUN[:1], *RUN[3:], "--data", "someone/rows"]  # the micro model that ships
    hub.cut(at=5_000)
    refused(command(*run), "someone/rows", "connection", "run the same command again")
    assert hub.sent["train.jsonl"] == [(0, 5_000)]
    hub.mend()
    done = command(*run)
    assert done.returncode == 0 and "read 120 rows" in done.stderr, done.stderr
    hub.server.shutdown()
    hub.server.server_close()
    again = command(*run, "--overwrite")  # nobody there, and nobody needed
    assert again.returncode == 0, again.stderr


def test_a_download_that_the_disk_cannot_hold(hub, tmp_path, small_data, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "disk"))
    done = in_mount(tmp_path, "size=30m", [*RUN, "--data", small_data])
    refused(done, "full", MODEL, "HF_HOME", "run the same command again")


TEMPLATES = ["chat_template.jinja", "additional_chat_templates/tools.jinja"]


def templates_of_their_own(folder):
    "As transformers 5 writes them: no longer within tokenizer_config.json."
    for name in TEMPLATES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    return folder


def test_a_chat_template_in_a_file_of_its_own_is_fetched(hub, tmp_path):
    (tmp_path / "qwen").mkdir()
    model, adapter = templates_of_their_own(qwen(tmp_path / "qwen")), tmp_path / "adapter"
    settings = model / "tokenizer_config.json"
    settings.write_text(json.dumps({name: value for name, value in json.loads(
        settings.read_text(encoding="utf-8")).items() if name != "chat_template"}), encoding="utf-8")
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    save_file({"a": torch.ones(1)}, adapter / "adapter_model.safetensors")
    hub.folders["models"] |= {"some/model": model, "some/adapter": templates_of_their_own(adapter)}
    done = subprocess.run([sys.executable, "-c", """if True:
        import json
        from qlora_nb.adapters import open_adapter
        from qlora_nb.models import fetch_model
        from qlora_nb.tokenizer import load_tokenizer
        template = load_tokenizer("some/model").chat_template  # fetched for itself
        folders = fetch_model("some/model"), open_adapter("some/adapter").path
        print(json.dumps([template, *([file.relative_to(folder).as_posix()
                                       for file in folder.rglob("*.jinja")] for folder in folders)]))
        """], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    template, *found = json.loads(done.stdout)
    assert {*template} == {"default", "tools"} and "m.role" in template["default"]
    assert [sorted(files) for files in found] == [sorted(TEMPLATES)] * 2


def test_the_memory_of_a_model_on_the_hub(hub, command, tmp_path, monkeypatch):
    ask = ["memory", MODEL, "--gpu", "T4", "--json"]
    known = json.loads(command(*ask, "--revision", "v1").stdout)
    assert list(hub.sent) == ["config.json"]
    local = json.loads(command("memory", tmp_path / "served", "--gpu", "T4", "--json").stdout)
    assert {**known[0], "model": ""} == {**local[0], "model": ""}
    refused(command("memory", "rinna/japanese-neox"), "no public model", "did you mean rinna/japanese")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert json.loads(command(*ask, "--revision", "v1").stdout) == known
