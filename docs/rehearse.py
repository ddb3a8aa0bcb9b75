"""Run notebooks as a reader does: plain Jupyter, the installed wheel, an empty folder.

    python docs/rehearse.py                         all notebooks
    python docs/rehearse.py nbs/00_bits.ipynb …     some
    python docs/rehearse.py --python env/bin/python nbs/03_blockwise.ipynb

nbdev's directives mean nothing here: every cell is run, as by "Run all" in Jupyter, VS Code and
Colab, and the repository is out of reach. A wheel is built and installed beside what this
environment has; --python names another environment instead, which has the package already.
Notebooks run side by side, one for each processor.
"""
import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from project import ROOT, notebooks

KERNEL = "reader"


def call(*command, **options) -> str:
    "What a command prints; its error text ends the program."
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def reader_environment(folder: Path) -> Path:
    "The Python of a new environment in `folder`: the wheel, and the packages of this one."
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT)
    wheel, = (folder / "dist").glob("*.whl")  # made from the source archive, which stands beside it
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    packages = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    call(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
         "--disable-pip-version-check", "--target", packages, wheel)
    # A line in a .pth adds the folder to the path and reads no .pth in it, so not our own tree.
    # A fifth of what importing torch and transformers takes is a search for garbage: less of it.
    beside = f"{sysconfig.get_path('purelib')}\nimport gc; gc.set_threshold(100_000, 20, 50)\n"
    Path(packages, "beside.pth").write_text(beside, encoding="utf-8")
    return python


def install_kernel(python: Path, folder: Path) -> None:
    "Let Jupyter find a kernel that is `python`."
    place = folder / "kernels" / KERNEL
    place.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"]
    text = json.dumps({"argv": argv, "display_name": KERNEL, "language": "python"})
    (place / "kernel.json").write_text(text, encoding="utf-8")


def run(path: Path, jupyter: Path, threads: int, timeout: int) -> tuple[float, str]:
    "Seconds that a notebook took, and what went wrong, if anything."
    start, said = time.perf_counter(), ""
    nb = nbformat.read(path, as_version=4)
    # JUPYTER_PATH is where kernels are looked for; it is set here, in a process of its own.
    os.environ["JUPYTER_PATH"] = str(jupyter)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": str(threads), "MPLBACKEND": ""}
    with tempfile.TemporaryDirectory() as empty:
        client = NotebookClient(nb, timeout=timeout, kernel_name=KERNEL,
                                resources={"metadata": {"path": empty}})
        try:
            client.execute(env=environment)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            said = str(error)
    return time.perf_counter() - start, said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of nbs/")
    parser.add_argument("--python", type=Path, help="an environment that has the package already")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="at once")
    parser.add_argument("--timeout", type=int, default=900, help="seconds that one cell may take")
    args = parser.parse_args()
    chosen = [path.resolve() for path in args.notebooks] or notebooks()
    threads = max(1, (os.cpu_count() or 1) // args.workers)
    failed, begun = 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(args.workers) as pool:
        folder = Path(folder)
        python = args.python.absolute() if args.python else reader_environment(folder)
        install_kernel(python, folder)
        # The long ones first, so that no processor is idle at the end.
        ordered = sorted(chosen, key=lambda path: -path.stat().st_size)
        jobs = {pool.submit(run, path, folder, threads, args.timeout): path for path in ordered}
        for job in as_completed(jobs):
            seconds, said = job.result()
            print(f"{jobs[job].name:<28} {seconds:6.1f} s  {'FAILED' if said else ''}", flush=True)
            if said:
                failed += 1
                print(said, file=sys.stderr, flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed: {time.perf_counter() - begun:.0f} s")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
