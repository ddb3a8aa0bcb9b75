"""Generated tensors: every bit of ours against bitsandbytes, more than 10,000 cases.

An example of hypothesis draws one layout (codebook, block size, dtype, length) and a seed, and is
checked on several tensors of that layout, each with another mixture of hard values.
"""
import subprocess
import sys
from dataclasses import replace

import bitsandbytes.functional as bnb
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qlora_nb.bits import same_bits
from qlora_nb.blockwise import (
    BITSANDBYTES, dequantize, from_bitsandbytes, ladder, quantize, to_bitsandbytes,
)
from qlora_nb.core import InputError
from qlora_nb.double_quant import double_quantize
from qlora_nb.kernels import CHUNK, can_compile
from qlora_nb.nf4 import codebook
from qlora_nb.storage import from_tensors, load_tensors, save_tensors, to_tensors

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BLOCK_SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
EXAMPLES, TENSORS = 900, 12  # 10,800 cases
counted = []

layouts = st.tuples(
    st.sampled_from(BITSANDBYTES), st.sampled_from(BLOCK_SIZES), st.sampled_from(DTYPES),
    st.one_of(st.integers(1, 300), st.integers(1, 9000), st.sampled_from([4096, 8192, 8193])),
    st.integers(0, 2**32 - 1),
)
quick = settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
                 suppress_health_check=list(HealthCheck))


def tensors(kind: str, block_size: int, dtype: torch.dtype, n: int, seed: int):
    "Tensors of one layout: normal, scaled, with zeros, ties, outliers, and float's smallest."
    generator = torch.Generator().manual_seed(seed)
    middles = torch.tensor(ladder(codebook(kind)).middles)
    for number in range(TENSORS):
        x = torch.randn(n, generator=generator)
        chosen = torch.rand(n, generator=generator)
        if number % 3 == 1:  # exact ties, as far as the block's absmax is a power of two
            x = middles[torch.randint(15, (n,), generator=generator)]
            x[::block_size] = 1.0
        if number % 4 == 2:
            x[chosen < 0.3] = 0.0
            x[chosen > 0.8] *= -0.0
        if number % 4 == 3:
            x[chosen < 0.02] *= 50
        if number == 10:
            x[: block_size + 3] = 0.0
        # The smallest scales reach subnormal numbers, the largest the end of float16.
        exponent = torch.randint(-40 if number % 2 else -4, 12, (1,), generator=generator)
        x = x * 2.0**exponent
        x = x * 1e-30 if number == 7 else x
        yield x.clamp(-6e4, 6e4).to(dtype)  # float16 ends at 65,504


def rule(packed, state):
    "What the packed bytes mean, element by element."
    codes = torch.stack([packed.view(-1) >> 4, packed.view(-1) & 15], dim=1).view(-1)
    codes = codes[: state.shape.numel()].long()
    scales = state.absmax.repeat_interleave(state.blocksize)[: len(codes)]
    return (state.code[codes] * scales).to(state.dtype)


@quick
@given(layouts)
def test_packed_absmax_and_values_are_those_of_bitsandbytes(layout):
    kind, block_size, *_ = layout
    for x in tensors(*layout):
        packed, state = bnb.quantize_4bit(x, blocksize=block_size, quant_type=kind)
        q = quantize(x, kind, block_size)
        assert same_bits(q.packed[:, None], packed)
        assert same_bits(q.absmax, state.absmax)
        assert same_bits(dequantize(q), rule(packed, state))
        counted.append(1)


def test_there_were_ten_thousand():
    if counted:  # this test alone has nothing to count
        assert len(counted) >= 10_000


@settings(quick, max_examples=150)
@given(layouts, st.sampled_from([1, 2, 3]))
def test_values_equal_those_that_bitsandbytes_computes(layout, rows):
    kind, block_size, dtype, n, seed = layout
    for x in tensors(kind, block_size, dtype, rows * block_size, seed):
        x = x.view(rows, block_size)  # widths that are no multiple of the block are its fault
        theirs = bnb.dequantize_4bit(
            *bnb.quantize_4bit(x, blocksize=block_size, quant_type=kind))
        ours = quantize(x, kind, block_size).dequantize()
        if dtype == torch.bfloat16:
            # Processors with AVX512-BF16 round subnormal results to 0, and bitsandbytes uses it.
            tiny = ours.float().abs() < torch.finfo(torch.float32).tiny
            assert (theirs[tiny].float().abs() < torch.finfo(torch.float32).tiny).all()
            ours, theirs = ours.masked_fill(tiny, 0), theirs.masked_fill(tiny, 0)
        assert same_bits(ours, theirs)


@settings(quick, max_examples=150)
@given(layouts)
def test_nested_state_is_that_of_bitsandbytes(layout):
    kind, block_size, *_ = layout
    for x in tensors(*layout):
        packed, state = bnb.quantize_4bit(
            x, blocksize=block_size, quant_type=kind, compress_statistics=True)
        q = double_quantize(quantize(x, kind, block_size))
        assert same_bits(q.absmax.packed, state.absmax)
        assert same_bits(q.absmax.absmax, state.state2.absmax)
        assert same_bits(q.absmax.offset, state.offset)
        theirs = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
        assert same_bits(q.absmax.dequantize(), theirs)


@settings(quick, max_examples=60)
@given(layouts, st.booleans())
def test_nothing_is_lost_on_the_way_to_others(layout, double):
    kind, block_size, *_ = layout
    for x in tensors(*layout):
        q = quantize(x, kind, block_size)
        q = double_quantize(q) if double else q
        for other in (from_bitsandbytes(*to_bitsandbytes(q)), from_tensors(to_tensors(q, "w"), "w")):
            assert (other.shape, other.dtype, other.block_size) == (q.shape, q.dtype, q.block_size)
            assert same_bits(other.packed, q.packed) and same_bits(other.codebook, q.codebook)
            assert same_bits(other.dequantize(), q.dequantize())


@pytest.mark.parametrize("shape", [(2, 48), (3, 48), (4, 96), (300, 352), (7, 5, 3), (101,), ()])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_shape_follows_the_rule(shape, dtype):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    packed, state = bnb.quantize_4bit(x, quant_type="nf4")
    assert same_bits(quantize(x).dequantize(), rule(packed, state).view(shape))


def test_strides_and_gradients_do_not_matter():
    x = torch.randn(96, 64, requires_grad=True)
    assert same_bits(quantize(x.t()).packed, quantize(x.t().contiguous()).packed)
    assert not quantize(x).dequantize().requires_grad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind, block_size", [("nf4", 64), ("fp4", 256), ("int4", 2), ("e2m1", 1)])
def test_compiled_code_gives_the_same_bits(kind, block_size, dtype):
    if not can_compile("cpu"):
        pytest.skip("no compiler here: the eager code is all there is")
    x = torch.randn(2 * CHUNK + 1537, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[:: 1000] *= 40
    x[5000:9000] = 0
    eager, fast = (quantize(x, kind, block_size, compiled=wish) for wish in (False, True))
    assert same_bits(eager.packed, fast.packed) and same_bits(eager.absmax, fast.absmax)
    inside = torch.cat([x[:1], x])[1:]  # begins at an odd place of its storage
    assert same_bits(quantize(inside, kind, block_size, compiled=True).packed, eager.packed)
    out = torch.full_like(x, torch.nan)
    assert eager.dequantize(out=out, compiled=True) is out
    assert same_bits(out, eager.dequantize(compiled=False))
    x[77] = torch.inf
    with pytest.raises(InputError, match="infinite"):
        quantize(x, kind, block_size, compiled=True)


def test_large_tensors_are_compiled_unasked(monkeypatch):
    import qlora_nb.kernels as module

    asked = []
    monkeypatch.setattr(module, "_compiled", lambda function, *variant: asked.append(1) or function)
    monkeypatch.setattr(module, "COMPILE_FROM", CHUNK)
    monkeypatch.setattr(module, "can_compile", lambda device: True)
    quantize(torch.randn(CHUNK - 64))
    assert not asked
    quantize(torch.randn(CHUNK))
    assert asked


FALLBACK = """
import sys, warnings, torch
from qlora_nb.blockwise import quantize
from qlora_nb.kernels import CHUNK, can_compile
x = torch.randn(CHUNK + 5, generator=torch.Generator().manual_seed(0))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    fast = quantize(x, compiled=True)
    values = fast.dequantize(compiled=True)
slow = quantize(x, compiled=False)
ours = [str(w.message) for w in caught if "no working compiler" in str(w.message)]
print(can_compile("cpu"), len(ours), torch.equal(fast.packed, slow.packed),
      torch.equal(values, slow.dequantize(compiled=False)))
"""


def test_without_a_compiler_the_eager_code_runs(tmp_path):
    bare = {"PATH": "", "CXX": "", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
            "PYTHONPATH": ":".join(filter(None, sys.path)), "HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", FALLBACK], env=bare, capture_output=True, text=True)
    assert run.stdout.split() == ["False", "2", "True", "True"], run.stderr[-2000:]


ALONE = """
import sys
sys.modules["bitsandbytes"] = None  # an import of it now fails
import torch
from qlora_nb.blockwise import quantize
from qlora_nb.double_quant import double_quantize
from qlora_nb.storage import load_tensors, save_tensors
q = double_quantize(quantize(torch.randn(100, 64)))
save_tensors(sys.argv[1], {"w": q})
print(torch.equal(load_tensors(sys.argv[1])["w"].dequantize(), q.dequantize()))
"""


def test_bitsandbytes_is_not_needed(tmp_path):
    run = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path / "w.safetensors")],
                         capture_output=True, text=True,
                         env={"PATH": "", "PYTHONPATH": ":".join(filter(None, sys.path))})
    assert run.stdout == "True\n", run.stderr[-2000:]


def weights():
    return torch.randn(4, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("change, message", [
    (dict(x=weights().fill_(torch.nan)), "NaN or infinite"),
    (dict(x=weights().fill_(-torch.inf)), "NaN or infinite"),
    (dict(x=weights().half().fill_(torch.inf)), "NaN or infinite"),
    (dict(x=weights().long()), "expected float32, float16 or bfloat16"),
    (dict(x=weights().double()), "expected float32, float16 or bfloat16"),
    (dict(x=weights().bool()), "expected float32, float16 or bfloat16"),
    (dict(x=weights()[:0]), "empty"),
    (dict(x=[1.0, 2.0]), "expected a tensor"),
    *[(dict(block_size=size), "power of two") for size in (0, -64, 3, 65, 64.0, "64", None, True)],
    (dict(codebook="nf5"), "unknown codebook"),
    (dict(codebook=torch.linspace(-1, 1, 15)), "16 values"),
    (dict(codebook=torch.linspace(-1, 1, 256)), "16 values"),
    (dict(codebook=torch.linspace(-1, 1, 16).view(4, 4)), "16 values"),
    (dict(codebook=torch.linspace(-1, 1, 16).double()), "torch.float32"),
    (dict(codebook=torch.full((16,), torch.nan)), "finite"),
    (dict(codebook=None), "16 values"),
])
def test_bad_input_is_refused_and_unchanged(change, message):
    arguments = {"x": weights()} | change
    before = arguments["x"].clone() if isinstance(arguments["x"], torch.Tensor) else None
    with pytest.raises(InputError, match=message):
        quantize(**arguments)
    if before is not None:
        assert same_bits(before, arguments["x"])


@pytest.mark.parametrize("part, message", [
    (lambda q: dict(packed=q.packed[:-1]), "cut off"),
    (lambda q: dict(packed=q.packed.long()), "cut off"),
    (lambda q: dict(absmax=q.absmax[:-1]), "cut off"),
    (lambda q: dict(absmax=q.absmax.double()), "cut off"),
    (lambda q: dict(shape=(4, 98)), "cut off"),
    (lambda q: dict(block_size=48), "power of two"),
    (lambda q: dict(block_size=128), "cut off"),
    (lambda q: dict(codebook=q.codebook[:15]), "codebook is"),
    (lambda q: dict(absmax=quantize(q.absmax)), "expected 8"),
    (lambda q: dict(dtype=torch.int8), "dtype"),
])
def test_parts_that_do_not_fit_are_refused(part, message):
    q = quantize(weights())
    with pytest.raises(InputError, match=message):
        replace(q, **part(q))


@pytest.mark.parametrize("out", [
    torch.zeros(96, 4), torch.zeros(4, 96, 2)[..., 0], torch.zeros(4, 96, dtype=torch.int32),
    torch.zeros(4, 96, device="meta"),
])
def test_a_buffer_that_does_not_fit_is_refused(out):
    before = out.clone()
    with pytest.raises(InputError, match="`out` is"):
        quantize(weights()).dequantize(out=out)
    assert out.is_meta or same_bits(before, out)


def test_a_file_is_whole_or_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    q = double_quantize(quantize(weights(), "e3m0"))
    save_tensors(path, {"a.weight": q, "b.weight": q, "bias": torch.ones(3)})
    again = load_tensors(path)
    assert again.keys() == {"a.weight", "b.weight", "bias"}
    assert same_bits(again["b.weight"].dequantize(), q.dequantize())
    whole = path.read_bytes()
    with pytest.raises(Exception):  # noqa: B017 - whatever safetensors says
        save_tensors(path, {"a": q, "b": "not a tensor"})
    assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]
    for damaged in (whole[: len(whole) // 2], whole[:4], b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="safetensors"):
            load_tensors(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_tensors(tmp_path / "none.safetensors")


@pytest.mark.parametrize("missing", ["", ".absmax", ".quant_map", ".nested_absmax",
                                     ".quant_state.bitsandbytes__nf4"])
def test_missing_parts_are_named(missing):
    tensors = to_tensors(double_quantize(quantize(weights())), "w")
    del tensors["w" + missing]
    with pytest.raises(InputError, match="'w'"):
        from_tensors(tensors, "w")


def test_a_weight_that_was_repacked_is_refused():
    packed, state = to_bitsandbytes(quantize(weights()))
    state.packing_format_for_cpu = True
    with pytest.raises(InputError, match="rearranged"):
        from_bitsandbytes(packed, state)
