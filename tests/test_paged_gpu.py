"""The GPU benchmark of paged optimizers: what it refuses, and what of it runs without a GPU."""
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qlora_nb.core import InputError

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "paged_gpu.py"
GB = 10**9


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("paged_gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_sentence_and_exit_code_2():
    done = subprocess.run([sys.executable, SCRIPT], text=True, capture_output=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.strip().splitlines()[-1].startswith("paged_gpu.py needs an NVIDIA GPU")


@pytest.mark.parametrize("free, host, largest, word", [
    (1.9, 9, 0.01, "on the GPU"), (9, 3.9, 0.01, "in the machine"),
    (9, 9, 0.1, "too large a part")])
def test_managed_memory_is_asked_for_only_with_room_to_spare(script, free, host, largest, word):
    with pytest.raises(InputError, match=word):
        script.check(GB, int(largest * GB), int(free * GB), int(host * GB))
    script.check(GB, GB // 100, 2 * GB, 4 * GB)


def test_the_default_size_is_allowed_on_a_gpu_of_16_gb(script):
    state = script.state_bytes(12, 256)
    assert state == 8 * 256 * 12 * 45_056
    script.check(state, 4 * 256 * 11_264, 10 * GB, 12 * GB)


@pytest.mark.parametrize("pressure", [0.0, 0.25, 0.5, 0.75])
def test_ballast_leaves_the_same_room_to_both_optimizers(script, pressure):
    total, state = 40 * GB, GB
    plain = script.ballast_bytes(total, state, pressure, managed=False)
    managed = script.ballast_bytes(total - state, state, pressure, managed=True)
    assert plain == managed
    room = total - plain  # for the state, with what is spared
    assert abs(room - ((1 - pressure) * state + script.SPARE)) <= script.CHUNK


def test_both_optimizers_train_the_model_alike(script):
    """On the CPU the paged optimizer is an ordinary one; the script's own steps run through."""
    size = dict(device="cpu", hidden=64, heads=2)
    found = script.same_numbers(1, 8, 16, **size)
    assert found["equal"]
    model, trained = script.build(1, 8, **size)
    before = [p.detach().clone() for p in trained]
    assert script.step(model, torch.optim.AdamW(trained), script.tokens(16, "cpu")) > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, trained))


def test_summary_compares_within_a_round(script):
    def run(name, pressure, *seconds):
        return {"optimizer": name, "pressure": pressure, "fits": bool(seconds), "seconds": seconds}

    runs = [run("AdamW", None, 1.0), run("PagedAdamW", 0.5, 3.0), run("AdamW", 0.5),
            run("AdamW", None, 2.0), run("PagedAdamW", 0.5, 6.0), run("AdamW", 0.5)]
    rows = {(r["optimizer"], r["pressure"]): r for r in script.summary(runs)}
    assert rows["PagedAdamW", 0.5]["against_adamw"] == 3 and not rows["AdamW", 0.5]["fits"]
