"""The house keeps its order: rooms import downwards only, and import little."""
import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import qlora_nb

PACKAGE = Path(qlora_nb.__file__).parent
# From the ground up; a module may import those before it.
ORDER = """core language questions processes processor options hub show plots progress bits minifloat nf4 kernels blockwise
storage double_quant lora peft_families linear4bit bnb_layers qlora architectures model_files
loading vocabulary lean prepare memory activations fits dry_run traced
checkpointing optimizers paged templates tokenizer readers data micro models plan exam variants runs trainer
record preflight scale finetune adapters several chat evaluate judges journal judge comparison
harness ablations claims playground terminal cli""".split()


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


def test_a_lower_room_loads_no_client_of_the_hub():
    script = ("import sys, qlora_nb.nf4, qlora_nb.hub\n"
              "print(sorted({'huggingface_hub', 'transformers', 'matplotlib'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_who_talks_with_a_model_loads_no_trainer():
    "Accelerate is loaded all the same: peft needs it."
    trainers = {"qlora_nb.trainer", "qlora_nb.finetune", "transformers.trainer", "matplotlib"}
    script = f"import sys, qlora_nb.chat; print('loaded', sorted({trainers!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True)
    assert done.stdout.strip() == "loaded []", done.stdout + done.stderr


def test_owner_and_repository_stand_in_settings_only():
    root = PACKAGE.parent
    settings = (root / "settings.ini").read_text(encoding="utf-8")
    user = next(line.split("=")[1].strip() for line in settings.splitlines() if line.startswith("user"))
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, text=True, capture_output=True)
    if tracked.returncode:
        return  # an unpacked archive has no list of files
    # README, notebooks and nbdev's index carry links that are made from settings.ini and checked.
    generated = {"README.md", "README.ja.md", "settings.ini", "qlora_nb/_modidx.py"}
    for name in tracked.stdout.split("\0"):
        if name and name not in generated and not name.endswith((".ipynb", ".safetensors")):
            text = (root / name).read_text(encoding="utf-8", errors="ignore")
            assert f"{user}/" not in text and f"{user}.github.io" not in text, name


def test_the_package_offers_what_people_look_for_and_loads_nothing_before():
    script = ("import sys, qlora_nb\n"
              "assert 'torch' not in sys.modules and len(qlora_nb.__all__) >= 10\n"
              "from qlora_nb import *\n"
              "for name in qlora_nb.__all__:\n"
              "    assert callable(globals()[name]) and name in dir(qlora_nb), name\n"
              "try: qlora_nb.no_such_name\n"
              "except AttributeError as error: print(error)")
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True)
    assert "no_such_name" in done.stdout, done.stderr


def test_help_says_what_the_parameters_are():
    from qlora_nb import blockwise, linear4bit
    words = inspect.getdoc(blockwise.quantize)
    for name in inspect.signature(blockwise.quantize).parameters:
        assert re.search(rf"^    {name}: \w", words, re.M), name
    assert "Returns:" in words
    assert "Args:" in inspect.getdoc(linear4bit.Linear4bit.from_linear)


def test_the_lower_rooms_cost_little_more_than_torch():
    "Seconds of the processor, the least of three, in turns."
    def seconds(line):
        script = (f"import time; start = time.process_time(); {line}; "
                  "print(time.process_time() - start)")
        done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=True)
        return float(done.stdout)

    pairs = [(seconds("import torch"), seconds("import qlora_nb.nf4")) for _ in range(3)]
    assert min(ours for _, ours in pairs) < 1.5 * min(theirs for theirs, _ in pairs), pairs


def test_scripts_import_what_there_is():
    "A benchmark that runs once a year must not find its import renamed."
    root = PACKAGE.parent
    for path in (file for folder in ("benchmarks", "docs", "tests") for file in (root / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qlora_nb"):
                module = importlib.import_module(node.module)
                for name in (alias.name for alias in node.names):
                    assert hasattr(module, name) or name in ORDER, f"{path.name}: {node.module}.{name}"


def test_a_public_name_means_one_thing():
    homes = {}
    for path in PACKAGE.glob("[!_]*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else [
                target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
            for name in names:
                if not name.startswith("_"):
                    homes.setdefault(name, set()).add(path.stem)
    twice = {name: sorted(rooms) for name, rooms in homes.items() if len(rooms) > 1}
    assert not twice, twice
