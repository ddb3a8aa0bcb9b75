"""The playground in JupyterLab, in a browser: a question, two streams, the stop button."""
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from qlora_nb.finetune import finetune
from qlora_nb.micro import micro_folder
from qlora_nb.options import FinetuneOptions

CELL = """from qlora_nb.playground import Playground
from qlora_nb.options import ChatOptions
playground = Playground(ChatOptions(
    adapter="run", compare=True, top_p=.7, seed=1, max_new_tokens=400))
# Drawn like this, both answers go on to the last token, and none is a byte without its character.
playground.widgets["temperature"].max = 5
playground.widgets["temperature"].value = 5
playground
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "JupyterLab in a folder with an adapter and a notebook of one cell; yields the page's address."
    folder = tmp_path_factory.mktemp("lab")
    finetune(FinetuneOptions(output=str(folder / "run"), data=str(micro_folder() / "train.jsonl"),
                             held_out=4, steps=2, eval_steps=0))
    cell = {"cell_type": "code", "id": "one", "metadata": {}, "source": CELL, "outputs": [],
            "execution_count": None}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (folder / "talk.ipynb").write_text(json.dumps({
        "cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(folder / ".jupyter") for name in (
        "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR")}
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("jupyter-lab")), "--no-browser", "--allow-root",
         "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
         "--IdentityProvider.token=letmein", "--LabApp.news_url=None"],
        cwd=folder, env=os.environ | own | {"PATH": os.pathsep.join(paths)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api/status?token=letmein", timeout=5)
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, "JupyterLab ended"
                time.sleep(.25)
        yield f"{address}/doc/tree/talk.ipynb?token=letmein"
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.timeout(400)
def test_a_question_is_answered_and_stopped(lab, browser, tmp_path):
    with browser.new_page(viewport={"width": 1000, "height": 900}) as page:
        page.set_default_timeout(120_000)
        page.goto(lab)
        page.wait_for_selector(".jp-Notebook .cm-content")
        # Before the kernel is there, JupyterLab takes the key and runs nothing.
        page.wait_for_function("() => document.body.innerText.includes('(ipykernel) | Idle')")
        page.locator(".jp-Notebook .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_selector("button:has-text('ask')")
        page.fill("textarea[placeholder='質問']", "空は何色ですか。")
        page.keyboard.press("Tab")
        page.click("button:has-text('ask')")
        copy = ("() => [...document.querySelectorAll('.jupyter-widgets textarea')].pop().value")
        page.wait_for_function(f"() => ({copy})().length > 60")  # it streams
        first = page.evaluate(copy)
        page.wait_for_function(f"() => ({copy})().length > {len(first)}")
        page.click("button:has-text('stop')")
        page.wait_for_selector(".jupyter-widgets i:has-text('stopped')")
        stopped = page.evaluate(copy)
        page.screenshot(path=os.environ.get("PLAYGROUND_PICTURE", tmp_path / "playground.png"))
        assert stopped.startswith(first[:30]) and "\ufffd" not in stopped
        assert [line for line in stopped.splitlines() if line in ("before", "after")] == \
            ["before", "after"] and stopped.count("> 空は何色ですか。") == 2
        page.wait_for_timeout(300)
        assert page.evaluate(copy) == stopped, "the answer went on"
        page.click("button:has-text('new conversation')")
        page.wait_for_function(f"() => ({copy})() === ''")
