"""The reference backend: the same job on this library's own layers, where bitsandbytes is absent."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qlora_nb.bits import same_bits

RECIPE = ["finetune", "--steps", "12", "--eval-steps", "0", "--batch-size", "8", "--held-out", "4",
          "--max-new-tokens", "8", "--seed", "3"]


@pytest.fixture
def without_bitsandbytes(tmp_path):
    "A command in an environment that has every installed package but bitsandbytes."
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(torch.__file__).parents[1].iterdir():
        if not entry.name.startswith("bitsandbytes"):
            (packages / entry.name).symlink_to(entry)
    path = f"{packages}{os.pathsep}{Path(__file__).parents[1]}"
    script = "import sys; from qlora_nb.cli import main; sys.exit(main(sys.argv[1:]))"

    def run(*arguments):
        return subprocess.run([sys.executable, "-S", "-c", script, *arguments], cwd=tmp_path,
                              env=os.environ | {"PYTHONPATH": path}, text=True,
                              capture_output=True, timeout=300)
    return run


def losses(folder):
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return torch.tensor([row["loss"] for row in record["history"] if "loss" in row])


def test_same_job_without_bitsandbytes(tmp_path, called, small_data, without_bitsandbytes):
    recipe = [*RECIPE, "--data", str(small_data)]
    wrong = without_bitsandbytes(*recipe, "--output", "none")
    assert wrong.returncode == 2 and "--backend reference" in wrong.stderr, wrong.stderr
    assert "Traceback" not in wrong.stderr and not (tmp_path / "none").exists()

    ours = without_bitsandbytes(*recipe, "--backend", "reference", "--output", "ours")
    assert ours.returncode == 0, ours.stderr
    theirs = called(*recipe, "--output", "theirs")
    assert theirs.returncode == 0, theirs.stderr
    # AdamW divides by the root of a second moment: a last bit of a gradient becomes visible there.
    torch.testing.assert_close(losses(tmp_path / "ours"), losses(tmp_path / "theirs"),
                               rtol=1e-3, atol=1e-4)
    assert losses(tmp_path / "ours")[-1] < losses(tmp_path / "ours")[0] / 2
    counts = [json.loads((tmp_path / name / "run.json").read_text())["metrics"]["parameters"]
              for name in ("ours", "theirs")]
    assert counts[0] == counts[1]

    # Each backend reads the other's adapter, and the merged models are the same.
    question = "日本の首都はどこですか。"
    said = [run("generate", question, "--adapter", name, *more).stdout
            for run, name, more in [(without_bitsandbytes, "theirs", []), (called, "theirs", []),
                                    (called, "ours", ["--backend", "bitsandbytes"]),
                                    (called, "ours", [])]]
    assert said[0] == said[1] and said[2] == said[3] and said[0].strip()
    for name, more in [("merged-1", []), ("merged-2", ["--backend", "bitsandbytes"])]:
        assert called("merge", "--adapter", "ours", "--output", name, *more).returncode == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("merged-1", "merged-2"))
    assert one.keys() == two.keys() and all(same_bits(one[name], two[name]) for name in one)


def test_apple_gpu_that_is_not_there(called):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has the GPU that is asked for")
    done = called("finetune", "--device", "mps", "--backend", "reference")
    assert done.returncode == 2 and "Apple GPU" in done.stderr and "Traceback" not in done.stderr
