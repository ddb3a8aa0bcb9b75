"""The step on a GPU that is not there: what it leaves behind, and what it does not let pass."""
import pytest
import torch
from torch.nn.functional import linear

from qlora_nb.core import InputError
from qlora_nb.dry_run import GPU, Watch, dry_step, fake_cuda
from qlora_nb.memory import Recipe, Shape

TINY = Shape(2, 128, 2, 300, context=512)
LEAN = Recipe(batch=2, sequence=192, dropout=0.05, padding=True, lean=True)


def test_afterwards_torch_is_as_it_was_and_trains():
    before = (torch.nn.functional.scaled_dot_product_attention, torch.cuda.is_bf16_supported,
              torch.cuda.synchronize, torch.cuda.amp.common.amp_definitely_not_available,
              torch.autograd.is_multithreading_enabled())
    run = dry_step(TINY, LEAN, torch.bfloat16)
    assert abs(run.off_by) < 0.03 and run.devices("forward", "backward") == {"cuda"}
    after = (torch.nn.functional.scaled_dot_product_attention, torch.cuda.is_bf16_supported,
             torch.cuda.synchronize, torch.cuda.amp.common.amp_definitely_not_available,
             torch.autograd.is_multithreading_enabled())
    assert before == after
    weight = torch.nn.Parameter(torch.ones(3, 3))
    linear(torch.ones(2, 3), weight).sum().backward()
    assert torch.equal(weight.grad, torch.full((3, 3), 2.0))


def test_an_error_inside_gives_everything_back_too():
    attention = torch.nn.functional.scaled_dot_product_attention
    with pytest.raises(RuntimeError, match="two devices"):
        with fake_cuda() as mode, Watch(mode):
            torch.empty(2, 8, device=GPU) + torch.empty(2, 8)
    assert torch.nn.functional.scaled_dot_product_attention is attention


def test_the_watch_counts_a_view_once_and_what_grows_again():
    with fake_cuda() as mode, Watch(mode) as watch:
        x = torch.empty(1024, device=GPU)
        y = x.view(32, 32)
        assert watch.now == watch.peak == 4096
        x.resize_(2048)
        assert watch.now == 8192
        del x
        assert watch.now == 8192
        del y
        assert watch.now == 0 and watch.peak == 8192


@pytest.mark.parametrize("changes", [dict(quantization="int8"), dict(device="cpu")])
def test_what_cannot_be_faked_is_refused(changes):
    with pytest.raises(InputError, match="a dry step needs a gpt_neox"):
        dry_step(TINY, Recipe(**changes))
