"""QLoRA, explained and used: each module is the code of a chapter.

    from qlora_nb import prepare_model, quantize_model, insert_lora

What is listed here is loaded when it is asked for; everything else stands in the modules.
"""
from importlib import import_module

__version__ = "0.1.0"

_PLACES = {
    "quantize": "blockwise", "dequantize": "blockwise", "Linear4bit": "linear4bit",
    "quantize_model": "qlora", "prepare_model": "qlora", "insert_lora": "qlora",
    "merge_lora": "qlora", "save_adapter": "model_files", "load_adapter": "model_files",
    "ledger": "activations", "Recipe": "memory", "load_tokenizer": "tokenizer",
}
__all__ = [*_PLACES]


def __getattr__(name: str):
    if name in _PLACES:
        return getattr(import_module(f".{_PLACES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; the modules hold more")


def __dir__() -> list:
    return sorted({*globals(), *_PLACES})
