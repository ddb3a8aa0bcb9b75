"""What a chapter needs so that "Run all" reaches its end in plain Jupyter, which knows no flags."""
import json
from pathlib import Path

import pytest

NBS = Path(__file__).parent.parent / "nbs"
SKIPPED = "skipped: there is no GPU here"


@pytest.mark.parametrize("name", ["13_paged", "18_rinna"])
def test_cells_for_a_gpu_decide_in_their_own_code(name):
    cells = json.loads((NBS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for_gpu = [source for source in sources if source.startswith("#| gpu")]
    assert for_gpu and all(SKIPPED in source for source in for_gpu)
    # Plain Jupyter runs what is marked as never to be run, too.
    assert not any(source.startswith("#| eval: false") for source in sources)


def test_colab_opens_the_real_job_on_a_gpu():
    metadata = json.loads((NBS / "18_rinna.ipynb").read_text(encoding="utf-8"))["metadata"]
    assert metadata["accelerator"] == "GPU" and metadata["colab"] == {"gpuType": "T4"}


def test_every_exercise_has_a_solution():
    cells = json.loads((NBS / "solutions.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    asking = {page for page in NBS.glob("*.ipynb") if "**Exercises.**" in page.read_text(encoding="utf-8")}
    assert asking >= {*NBS.glob("[0-9]*.ipynb")} and NBS / "a_fits.ipynb" in asking
    for chapter in sorted(asking):
        solved = text.partition(f"]({chapter.name})\n")[2].partition("\n## ")[0]
        assert "**1.**" in solved and "**2.**" in solved, chapter.name
        assert "[Solutions](solutions.ipynb)" in chapter.read_text(encoding="utf-8"), chapter.name
