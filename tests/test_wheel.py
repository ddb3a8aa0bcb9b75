"""The wheel alone, in an environment of its own, is enough to import and to fine-tune."""
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import qlora_nb

ROOT = Path(qlora_nb.__file__).parents[1]


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True,
                          timeout=600, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_brings_model_and_results(tmp_path, small_data):
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        "--disable-pip-version-check", "--wheel-dir", tmp_path / "dist", ROOT)
    wheel, = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
        "--disable-pip-version-check", "--target", site, wheel)
    # The dependencies come from the environment that runs this test; the package must not.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    where = run(python, "-c", "import qlora_nb; print(qlora_nb.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(site), where
    script = ("from qlora_nb.core import stored_result; import sys; from qlora_nb.cli import main; "
              "from qlora_nb.memory import Calculator; assert 'rinna' in Calculator()._repr_html_(); "
              "assert stored_result('compare_methods')['runs']; sys.exit(main(sys.argv[1:]))")
    out = run(python, "-c", script, "finetune", "--data", small_data, "--steps", 2,
              "--batch-size", 4, "--held-out", 2, "--max-new-tokens", 2, "--output", "run",
              cwd=tmp_path)
    assert "exact match" in out
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()
