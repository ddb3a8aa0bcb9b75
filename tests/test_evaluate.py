"""Intervals, windows and losses at the edges that the chapter has no room for."""
import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from qlora_nb.core import InputError
from qlora_nb.evaluate import (
    bootstrap_interval, mark_answers, paired_difference, proportion_interval, questions_needed,
    sliding_window_loss,
)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return GPTNeoXForCausalLM(GPTNeoXConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64)).eval()


@pytest.mark.parametrize("length", [2, 7, 8, 9, 15, 16, 40])
@pytest.mark.parametrize("stride", [1, 3, 7])
def test_a_window_gives_each_token_the_past_that_it_promises(tiny, length, stride):
    "Each token once, with the tokens from the beginning of the first window that grades it."
    context = 8
    ids = torch.randint(0, 40, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    found = sliding_window_loss(tiny, ids, context, stride, batch_size=3)
    assert found.shape == (length - 1,)
    for i in range(1, length):
        start = max(0, -(-(i + 1 - context) // stride) * stride)
        with torch.no_grad():
            logits = tiny(torch.tensor([ids[start:i]])).logits[0, -1]
        assert found[i - 1] == pytest.approx(-float(logits.log_softmax(-1)[ids[i]]), abs=1e-5)


def test_padding_changes_no_answers_loss(tiny):
    rows = [{"input_ids": list(range(n)), "labels": [-100, *range(1, n)]} for n in (3, 9, 5)]

    def collate(some):
        length = max(len(row["input_ids"]) for row in some)
        return {name: torch.tensor([row[name] + [fill] * (length - len(row[name])) for row in some])
                for name, fill in (("input_ids", 0), ("labels", -100))}

    alone = [mark_answers(tiny, [row], collate)[0][0] for row in rows]
    assert mark_answers(tiny, rows, collate, batch_size=2)[0] == pytest.approx(alone, abs=1e-5)


def test_many_questions_are_drawn_in_parts():
    marks = np.arange(2_000_001) % 4 == 0
    value, low, high = bootstrap_interval(marks, resamples=20)
    assert low < value < high and high - low < 0.01


def test_intervals_at_their_ends():
    assert bootstrap_interval([3.0, 3.0]) == (3.0, 3.0, 3.0)
    for right in (0, 1):
        share, low, high = proportion_interval(right, 1)
        assert share == right and 0 <= low < high <= 1
    narrow, wide = (proportion_interval(5, 9, level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert questions_needed(1, 1) < 10


@pytest.mark.parametrize("call, says", [
    (lambda: bootstrap_interval([]), "two questions or more"),
    (lambda: bootstrap_interval([0.5]), "two questions or more"),
    (lambda: bootstrap_interval([1, float("inf")]), "finite"),
    (lambda: bootstrap_interval([0, 1], level=1), "between 0 and 1"),
    (lambda: paired_difference([0, 1], [1]), "same questions"),
    (lambda: proportion_interval(0, 0), "cannot be"),
    (lambda: proportion_interval(-1, 5), "cannot be"),
    (lambda: questions_needed(0, 0.1), "cannot be"),
    (lambda: questions_needed(-0.1, 0.1), "cannot be"),
    (lambda: sliding_window_loss(None, [1, 2], 8, 8), "cannot move by 8"),
    (lambda: sliding_window_loss(None, [1], 8, 4), "nothing to predict")])
def test_what_cannot_be_is_said_in_a_sentence(call, says):
    with pytest.raises(InputError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
