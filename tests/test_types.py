"""What a checker knows of the library: mypy reads this file in `make lint`, and pytest runs it."""
from pathlib import Path

import torch
from typing_extensions import assert_type

import qlora_nb
from qlora_nb.blockwise import QuantizedTensor, quantize
from qlora_nb.linear4bit import Linear4bit
from qlora_nb.lora import LoRALinear
from qlora_nb.memory import Shape, read_shape
from qlora_nb.activations import Ledger, ledger
from qlora_nb.options import FinetuneOptions, resolve
from qlora_nb.readers import Row, read_rows


def test_options_keep_their_types():
    options = assert_type(resolve(FinetuneOptions(rank=4)), FinetuneOptions)
    assert assert_type(options.rank, int | None) == 4
    assert assert_type(options.learning_rate, float | None)


def test_quantized_tensors_and_layers_have_types():
    q = assert_type(quantize(torch.ones(4, 64)), QuantizedTensor)
    assert assert_type(q.dequantize(), torch.Tensor).shape == (4, 64)
    layer = assert_type(Linear4bit.from_linear(torch.nn.Linear(64, 4)), Linear4bit)
    assert assert_type(layer.quantized.nbytes, int)
    assert assert_type(LoRALinear(layer, 2, 4).merged, bool) is False


def test_the_ledger_counts_in_whole_bytes():
    shape = assert_type(read_shape("micro"), Shape)
    assert assert_type(shape.intermediate, int) == 4 * shape.hidden
    assert assert_type(assert_type(ledger(shape), Ledger).total, int)


def test_rows_remember_their_number(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    row = assert_type(read_rows(tmp_path / "rows.jsonl"), list[Row])[0]
    assert assert_type(row.number, int) == 1


def test_the_package_says_that_it_is_typed():
    assert (Path(qlora_nb.__file__).parent / "py.typed").is_file()
