"""`qlora-nb evaluate --tasks` on a task of one's own, in a folder."""
import json

import pytest
import torch

from bad_inputs.adapters import A, B, adapter

TASK = """task: two_plus
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/rows.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: label
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def tasks(tmp_path):
    "A folder with one task of twelve questions."
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"question": f"2 + {n} =", "choices": [str(n), str(n + 1), str(n + 2)], "label": 2}
            for n in range(12)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "two_plus.yaml").write_text(TASK.format(folder=folder))
    return folder


def test_an_adapter_stands_beside_its_base(called, tasks, tmp_path):
    torch.manual_seed(0)
    odd = adapter(tmp_path, {A: torch.randn(4, 192) / 4, B: torch.randn(192, 4) / 4})
    line = ["evaluate", "--adapter", odd, "--tasks", "two_plus", "--include-path", tasks, "--output", "made",
            "--quantization", "nf4"]
    done = called(*line)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "made" / "tasks.json").read_text(encoding="utf-8"))
    scores = result["tasks"]["two_plus"]["acc,none"]
    assert set(scores) == {"a", "b", "difference"} and result["sides"] == {"a": "odd", "b": "base"}
    assert scores["difference"]["value"] == pytest.approx(scores["a"]["value"] - scores["b"]["value"])
    assert "two_plus" in done.stdout and "difference" in done.stdout
    assert {"tasks-a_rank0.db", "tasks-b_rank0.db"} <= {path.name for path in (tmp_path / "made").iterdir()}
    other = called(*line[:-1], "none")
    assert other.returncode == 2 and "quantization was 'nf4'" in other.stderr
