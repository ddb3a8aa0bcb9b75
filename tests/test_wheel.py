"""The source archive and the wheel, alone in an environment, are enough to import and fine-tune."""
import subprocess
import sys
import tarfile
from pathlib import Path

import qlora_nb

ROOT = Path(qlora_nb.__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from rehearse import reader_environment  # noqa: E402


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True,
                          timeout=600, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_archive_and_wheel_bring_all_that_they_need(tmp_path, small_data):
    python = reader_environment(tmp_path)  # the wheel is built from the unpacked archive
    archive, = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"settings.ini", "constraints.txt", "nbs/00_bits.ipynb", "tests/conftest.py",
            "benchmarks/results/compare_methods.json", "qlora_nb/py.typed"} <= names

    where = Path(run(python, "-c", "import qlora_nb; print(qlora_nb.__file__)", cwd=tmp_path).strip())
    assert where.is_relative_to(tmp_path), where
    assert (where.parent / "py.typed").is_file()
    script = ("from qlora_nb.core import stored_result; import sys; from qlora_nb.cli import main; "
              "from qlora_nb.memory import Calculator; assert 'rinna' in Calculator()._repr_html_(); "
              "assert stored_result('compare_methods')['runs']; sys.exit(main(sys.argv[1:]))")
    out = run(python, "-c", script, "finetune", "--data", small_data, "--steps", 2,
              "--batch-size", 4, "--held-out", 2, "--max-new-tokens", 2, "--output", "run",
              cwd=tmp_path)
    assert "exact match" in out
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()
