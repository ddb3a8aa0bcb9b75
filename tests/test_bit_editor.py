"""The switches of the chapter on bits: in a browser they read a pattern as torch does."""
import math
import random

import pytest
import torch

from test_imports import PACKAGE

NOTEBOOK = PACKAGE.parent / "nbs" / "00_bits.ipynb"


@pytest.fixture
def page(stored_page):
    "A page with the switches as they are stored in the notebook."
    return stored_page(NOTEBOOK, "bit-editor")


def test_any_pattern_reads_as_torch_reads_it(page):
    rng, buttons = random.Random(0), page.get_by_role("button")
    patterns = [0x0000, 0x8000, 0x0001, 0x03FF, 0x7BFF, 0x7C00, 0xFC00, 0x7E01]
    for pattern in patterns + [rng.randrange(2**16) for _ in range(60)]:
        for place, bit in enumerate(f"{pattern:016b}"):
            if buttons.nth(place).text_content() != bit:
                buttons.nth(place).click()
        signed = pattern - 2**16 if pattern >= 2**15 else pattern
        theirs = torch.tensor([signed], dtype=torch.int16).view(torch.float16).item()
        ours = float(page.locator(".bit-editor").get_attribute("data-value"))
        assert math.isnan(ours) if math.isnan(theirs) else ours == theirs, hex(pattern)


def test_the_keyboard_flips_a_bit(page):
    status = page.get_by_role("status")
    assert status.text_content().endswith("= −6.5")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert status.text_content().endswith("= 6.5")
