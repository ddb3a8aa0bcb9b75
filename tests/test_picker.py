"""The token picker of the tokenizer's chapter: in a browser it cuts texts as `tokenizers` does."""
import json
import random
import re

import pytest
from tokenizers import Tokenizer, models

from test_imports import PACKAGE

NOTEBOOK = PACKAGE.parent / "nbs" / "14_tokenizer.ipynb"


@pytest.fixture
def page(stored_page):
    "A page with the picker as it is stored in the notebook."
    return stored_page(NOTEBOOK, "token-picker")


def ids(page) -> list[int]:
    return [int(text) for text in page.locator(".token-picker sub").all_text_contents()]


def test_the_picker_cuts_any_text_as_the_library_does(page):
    data = json.loads(page.locator("script[type='application/json']").text_content())
    known = {id: (text, score) for text, score, id in data["pieces"]}
    vocabulary = [known.get(id, (f"<{id}>", -1e6)) for id in range(max(known) + 1)]
    vocabulary[data["bytes"]:data["bytes"] + 256] = [(f"<0x{b:02X}>", -1e6) for b in range(256)]
    vocabulary[1] = ("[UNK]", -1e6)
    theirs = Tokenizer(models.Unigram(vocabulary, unk_id=1, byte_fallback=True))
    rng = random.Random(0)
    letters = [*{letter for text, _ in known.values() for letter in text}, *"鰯鬱🐈"]
    for _ in range(200):
        text = "".join(rng.choice([rng.choice(letters), rng.choice([*known.values()])[0]])
                       for _ in range(rng.randint(1, 8)))
        page.get_by_role("textbox").fill(text)
        assert ids(page) == theirs.encode(text).ids, text


def test_the_keyboard_reaches_the_prepared_texts(page):
    before, status = ids(page), page.get_by_role("status")
    assert re.match(r"\d+ characters, \d+ tokens", status.text_content()) and before
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert ids(page) != before
    assert page.get_by_role("textbox").input_value() == page.get_by_role("combobox").input_value()
