"""The source archive and the wheel, alone in an environment: the first hour of those who install it.

Who reads chapters is rehearsed by docs/rehearse.py and docs/rehearse_colab.py, who browses the site
by test_site.py.
"""
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import qlora_nb

ROOT = Path(qlora_nb.__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from rehearse import reader_environment  # noqa: E402


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    "The Python of an environment with the wheel, which is built from the unpacked archive."
    return reader_environment(tmp_path_factory.mktemp("reader"))


def run(*command, status=0, **options):
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True,
                          timeout=600, **options)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_the_archive_holds_what_it_is_built_from(python):
    archive, = (python.parents[2] / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"settings.ini", "constraints.txt", "nbs/00_bits.ipynb", "tests/conftest.py",
            "benchmarks/results/compare_methods.json", "qlora_nb/py.typed"} <= names


def test_who_imports_the_library_finds_what_its_pages_show(python, tmp_path):
    script = """
import qlora_nb
from pathlib import Path
from torch import nn, ones
from qlora_nb import Linear4bit, insert_lora, merge_lora, quantize_model
from qlora_nb.core import stored_result
from qlora_nb.fits import Calculator
from qlora_nb.micro import facts

print(qlora_nb.__file__)
assert (Path(qlora_nb.__file__).parent / "py.typed").is_file()
model = quantize_model(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)))
assert any(isinstance(part, Linear4bit) for part in model.modules())
model(ones(2, 64)).sum()
assert "rinna" in Calculator()._repr_html_() and stored_result("compare_methods")["runs"]
assert len(facts()) > 1_000  # the tables of the micro model's world
"""
    where = run(python, "-c", script, cwd=tmp_path).splitlines()[0]
    assert Path(where).is_relative_to(python.parents[1]), where


def test_who_types_the_readme_gets_from_rows_to_a_merged_model(python, tmp_path, small_data):
    "One process a command, and the first of them too early."
    def command(*words, **options):
        program = "import sys; from qlora_nb.cli import main; sys.exit(main())"
        return run(python, "-c", program, *words, cwd=tmp_path, **options)

    question = "日本で一番高い山は何ですか。"
    assert "finetune first" in command("generate", question, status=2)
    out = command("finetune", "--data", small_data, "--steps", 2, "--batch-size", 4,
                  "--held-out", 2, "--max-new-tokens", 2, "--output", "runs/mine")
    assert "exact match" in out
    assert (tmp_path / "runs" / "mine" / "adapter_model.safetensors").is_file()
    command("merge", "--adapter", "runs/mine", "--output", "merged")
    assert command("generate", "--model", "merged", "--max-new-tokens", 4, question).strip()
    assert "mine" in command("runs") and "micro" in command("memory", "micro", "--json")
