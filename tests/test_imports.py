"""The house keeps its order: rooms import downwards only, and import little."""
import ast
import subprocess
import sys
from pathlib import Path

import qlora_nb

PACKAGE = Path(qlora_nb.__file__).parent
# From the ground up; a module may import those before it.
ORDER = """core plots bits minifloat nf4 blockwise double_quant lora peft_families linear4bit qlora
memory checkpointing paged tokenizer data micro options models finetune adapters chat evaluate
kernels cli""".split()


def imported(path: Path) -> set[str]:
    "The modules of the package that a module imports."
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("qlora_nb")):
            module = (node.module or "").removeprefix("qlora_nb").lstrip(".")
            found |= {module} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names
                      if alias.name.startswith("qlora_nb.")}
    return {name for name in found if name in ORDER}


def test_every_module_has_a_place_and_imports_downwards():
    modules = [path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("_")]
    assert set(modules) <= set(ORDER), set(modules) - set(ORDER)
    assert len(modules) >= 8
    for name in modules:
        above = set(ORDER[ORDER.index(name):]) - {name}
        assert not imported(PACKAGE / f"{name}.py") & above, f"{name} imports a later module"


def test_import_needs_neither_nbdev_nor_jupyter():
    modules = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("_"))
    script = "\n".join([
        "import sys",
        "class Absent:",
        "    def find_spec(self, name, path=None, target=None):",
        "        if name.split('.')[0] in {'nbdev', 'fastcore', 'execnb', 'IPython', 'ipywidgets'}:",
        "            raise ModuleNotFoundError(name)",
        "sys.meta_path.insert(0, Absent())",
        f"for name in {modules!r}: __import__('qlora_nb.' + name)",
        "print('imported')",
    ])
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True)
    assert done.stdout.strip().endswith("imported"), done.stderr


def test_owner_and_repository_stand_in_settings_only():
    root = PACKAGE.parent
    settings = (root / "settings.ini").read_text(encoding="utf-8")
    user = next(line.split("=")[1].strip() for line in settings.splitlines() if line.startswith("user"))
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, text=True, capture_output=True)
    if tracked.returncode:
        return  # an unpacked archive has no list of files
    # README, notebooks and nbdev's index carry links that are made from settings.ini and checked.
    generated = {"README.md", "settings.ini", "qlora_nb/_modidx.py"}
    for name in tracked.stdout.split("\0"):
        if name and name not in generated and not name.endswith((".ipynb", ".safetensors")):
            text = (root / name).read_text(encoding="utf-8", errors="ignore")
            assert f"{user}/" not in text and f"{user}.github.io" not in text, name
