"""What only a GPU can show: the same bits as on the CPU, and both backends training on CUDA."""
import json

import pytest
import torch

from qlora_nb.bits import same_bits
from qlora_nb.blockwise import from_bitsandbytes, quantize
from qlora_nb.core import InputError
from qlora_nb.double_quant import double_quantize
from qlora_nb.finetune import finetune
from qlora_nb.linear4bit import Linear4bit
from qlora_nb.preflight import free_bytes
from qlora_nb.options import FinetuneOptions

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_and_values_are_those_of_the_cpu(dtype, compiled):
    x = torch.randn(4096, 1024, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[0, ::7] *= 40
    x[5] = 0
    there = quantize(x.cuda(), compiled=compiled)
    here = quantize(x, compiled=False)
    assert same_bits(there.packed.cpu(), here.packed)
    assert same_bits(there.absmax.cpu(), here.absmax)
    values = there.dequantize(compiled=compiled)
    assert same_bits(values.cpu(), here.dequantize(compiled=False))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nf4_is_that_of_bitsandbytes_on_cuda(dtype):
    import bitsandbytes.functional as bnb

    x = torch.randn(1000, 352, generator=torch.Generator().manual_seed(0)).to("cuda", dtype)
    packed, state = bnb.quantize_4bit(x, quant_type="nf4", compress_statistics=True)
    ours = from_bitsandbytes(packed, state)
    assert same_bits(quantize(x).packed, ours.packed)
    assert same_bits(ours.dequantize(dtype), bnb.dequantize_4bit(packed, state))


def test_a_layer_moves_to_the_gpu_with_all_its_bits():
    torch.manual_seed(0)
    layer = Linear4bit.from_linear(torch.nn.Linear(192, 768))
    before = layer.dequantize()
    x = torch.randn(16, 192)
    expected = layer(x)
    layer.cuda()
    assert same_bits(layer.dequantize().cpu(), before)
    # float32 products are summed in another order on a GPU, or in TF32 where that is switched on.
    torch.testing.assert_close(layer(x.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3)


def test_double_quantization_moves_too():
    q = double_quantize(quantize(torch.randn(64, 4096)))
    assert same_bits(q.to("cuda").dequantize().cpu(), q.dequantize())


@pytest.mark.parametrize("dtype", ["float16", "auto"])
def test_both_backends_train_on_the_gpu(tmp_path, command, small_data, dtype):
    recipe = ["finetune", "--steps", "20", "--eval-steps", "0", "--held-out", "4", "--max-new-tokens",
              "8", "--data", str(small_data), "--device", "cuda", "--compute-dtype", dtype]
    losses = {}
    for backend in ("bitsandbytes", "reference"):
        done = command(*recipe, "--backend", backend, "--output", backend)
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / backend / "run.json").read_text(encoding="utf-8"))
        losses[backend] = torch.tensor([row["loss"] for row in record["history"] if "loss" in row])
        assert losses[backend].isfinite().all()
        assert losses[backend][-1] < losses[backend][0] / 2
    # 16-bit arithmetic in other kernels: the first losses agree to their digits, later ones drift.
    torch.testing.assert_close(losses["reference"][:3], losses["bitsandbytes"][:3],
                               rtol=0.02, atol=0.02)


def test_what_is_free_is_counted_and_too_little_is_refused(tmp_path, small_data):
    device = torch.device("cuda")
    before = free_bytes(device)
    held = torch.empty(2**30, dtype=torch.uint8, device=device)
    # Other processes may take or give back a little meanwhile.
    assert abs(before - free_bytes(device) - 2**30) < 2**27
    del held  # torch keeps it, and it is free for whatever torch makes next
    assert abs(before - free_bytes(device)) < 2**27
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    options = FinetuneOptions(data=str(small_data), output=str(tmp_path / "run"), device="cuda",
                              batch_size=32, held_out=4, steps=2, gradient_checkpointing=False)
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 2.8e7) / total)
    try:
        with pytest.raises(InputError, match="does not fit.*--batch-size 16 --accumulation 2"):
            finetune(options)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert not list(tmp_path.iterdir())
