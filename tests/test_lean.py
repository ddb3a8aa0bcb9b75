"""Sixteen bits wherever they are enough, and no logits that nothing grades: is it the same training?"""
import pytest
import torch
from accelerate.utils import send_to_device

from qlora_nb.data import Collator
from qlora_nb.exam import ask, mean_loss
from qlora_nb.finetune import set_up
from qlora_nb.lean import training_loss
from qlora_nb.micro import micro_folder
from qlora_nb.models import load_base
from qlora_nb.options import FinetuneOptions
from qlora_nb.plan import Plan, make_plan
from qlora_nb.prepare import prepare

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")
WHERE = [("cpu", "bfloat16"), pytest.param("cuda", "bfloat16", marks=GPU),
         pytest.param("cuda", "float16", marks=GPU)]


def plan(backend: str, device: str, dtype: str) -> Plan:
    return make_plan(FinetuneOptions(backend=backend, device=device, compute_dtype=dtype,
                                     gradient_checkpointing=device == "cuda"))


def wide(chosen: Plan):
    "The model as k-bit preparation leaves it, with its own loss."
    folder = micro_folder() / "model"
    base = load_base(folder, compute_dtype=chosen.dtype,
                     device=chosen.device, backend=chosen.backend)
    return prepare(base, chosen.rank, chosen.alpha, backend=chosen.backend, narrow=False,
                   dtype=chosen.dtype,
                   gradient_checkpointing=chosen.gradient_checkpointing)


def own_loss(model, batch):
    return model(**batch).loss


def losses(model, loss_of, collator, rows: list[dict], steps: int, dtype: torch.dtype) -> list[float]:
    "Training losses over batches of 16 rows under autocast."
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    scaler, found = torch.amp.GradScaler(model.device.type, enabled=dtype is torch.float16), []
    for step in range(steps):
        batch = send_to_device(collator(rows[16 * step:16 * (step + 1)]), model.device)
        with torch.autocast(model.device.type, dtype=dtype):
            loss = loss_of(model.train(), batch)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("device, dtype", WHERE)
@pytest.mark.parametrize("backend", ["bitsandbytes", "reference"])
def test_the_lean_recipe_learns_what_the_wide_one_learns(backend, device, dtype):
    chosen, dtype = plan(backend, device, dtype), getattr(torch, dtype)
    setup = set_up(chosen)
    rows = setup.data.train
    lean = losses(setup.model, training_loss, setup.data.collator, rows, 20, dtype)
    plain = losses(wide(chosen), own_loss, Collator(setup.tokenizer), rows, 20, dtype)
    assert lean[0] == pytest.approx(plain[0], rel=2**-8)  # the first step sees rounding alone
    assert lean == pytest.approx(plain, rel=0.05) and lean[-1] < 0.6 * lean[0]


@pytest.mark.parametrize("device, dtype", WHERE)
@pytest.mark.parametrize("backend", ["bitsandbytes", "reference"])
def test_what_is_lean_still_answers_and_is_examined_as_before(backend, device, dtype):
    chosen, dtype = plan(backend, device, dtype), getattr(torch, dtype)
    setup = set_up(chosen)
    exam = setup.data.exams["held-out"]
    assert all(isinstance(answer, str) for answer in
               ask(setup.model, setup.tokenizer, exam.prompts[:4], max_new_tokens=8))
    trained = [p for p in setup.model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    ends = {setup.model.get_input_embeddings().weight.dtype,
            setup.model.get_output_embeddings().weight.dtype}
    assert ends == {dtype}
    loss = mean_loss(setup.model, exam.examples[:64], setup.data.collator)
    with torch.autocast(device, dtype=dtype):
        plain = mean_loss(wide(chosen), exam.examples[:64], Collator(setup.tokenizer))
    assert loss == pytest.approx(plain, rel=2**-8)
