"""Rehearse Colab: install as a chapter's first cell does, beside what Colab ships, and run some.

    python docs/rehearse_colab.py [--python python3.13] [--env FOLDER] [notebooks …]

Makes an environment from docs/colab.txt (some gigabytes, most of them torch), builds the wheel,
installs it with what chapters use, and fails if pip replaced a package that Colab had: whatever
is loaded when the first cell runs would then ask for a restart. Default: chapters 3 (a slider),
5 (an adapter on a float model, with an old torchao beside) and 12 (SentencePiece and protobuf).
--env keeps the environment for the next time. It is not Colab: no GPU, another kernel.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from project import NBS, ROOT
from rehearse import call

SHIPPED = ROOT / "docs" / "colab.txt"
CHAPTERS = [NBS / name for name in ("03_blockwise.ipynb", "05_lora.ipynb", "14_tokenizer.ipynb")]


def versions(python: Path) -> dict[str, str]:
    "Name and version of each package that an environment has."
    rows = json.loads(call(python, "-m", "pip", "list", "--format", "json",
                           "--disable-pip-version-check"))
    return {row["name"].lower().replace("-", "_"): row["version"] for row in rows}


def environment(folder: Path, interpreter: str) -> Path:
    "The Python of an environment with Colab's versions, made where it is missing."
    python = folder / "bin" / "python"
    if not python.exists():
        call(interpreter, "-m", "venv", folder)
        print(f"installing what {SHIPPED.name} lists into {folder}", flush=True)
        call(python, "-m", "pip", "install", "--quiet", "-r", SHIPPED, "ipykernel")
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, default=CHAPTERS)
    parser.add_argument("--python", default="python3.13", help="Colab's Python, or near it")
    parser.add_argument("--env", type=Path, help="where the environment is kept")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        python = environment((args.env or Path(temporary, "env")).absolute(), args.python)
        before = versions(python)
        call(sys.executable, "-m", "build", "--no-isolation", "--outdir", temporary, ROOT)
        wheel, = Path(temporary).glob("*.whl")
        call(python, "-m", "pip", "install", "--quiet", f"{wheel}[chapters]")
        # In a kept environment the wheel of last time has the same version.
        call(python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", wheel)
        after = versions(python)
        new = sorted(set(after) - set(before))
        print("installed:", ", ".join(f"{name} {after[name]}" for name in new))
        changed = [f"{name} {old} -> {after.get(name)}" for name, old in before.items()
                   if after.get(name) != old and name != "qlora_nb"]
        if changed:
            print("replaced what Colab ships: " + ", ".join(changed), file=sys.stderr)
            return 1
        return subprocess.call([sys.executable, str(ROOT / "docs" / "rehearse.py"),
                                "--python", str(python), *map(str, args.notebooks)])


if __name__ == "__main__":
    sys.exit(main())
