"""Small models with random weights, laid out as the files of the real ones are.

Names, shapes that hang together, dtypes, buffers and settings are those of the authors; only the
sizes and the values are not.
"""
import json
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from qlora_nb.micro import micro_folder
from qlora_nb.tokenizer import train_sentencepiece

# What GPT-NeoX configurations held in early 2023: rotary_pct, rotary_emb_base and torch_dtype, and
# nothing of rope_parameters, dtype or layer_types.
CONFIG = {
    "architectures": ["GPTNeoXForCausalLM"], "hidden_act": "gelu", "hidden_size": 64,
    "initializer_range": 0.02, "intermediate_size": 256, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 128, "model_type": "gpt_neox", "num_attention_heads": 2,
    "num_hidden_layers": 2, "rotary_emb_base": 10000, "rotary_pct": 1.0,
    "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.27.0",
    "use_cache": True, "use_parallel_residual": False,
}


def lines() -> list[str]:
    "Text to train a tokenizer on."
    rows = (micro_folder() / "train.jsonl").read_text(encoding="utf-8").splitlines()[:400]
    return [row[key] for row in map(json.loads, rows) for key in ("instruction", "output")]


def dump(path: Path, **content) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def old_state(config: dict, mask: torch.dtype | None) -> dict:
    "Float16 weights under their names in files, with the buffers where `mask` is their dtype."
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig.from_dict(config)).half()
    state = {name.replace("lm_head.", "embed_out."): tensor.clone()
             for name, tensor in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        del state["embed_out.weight"]
    length, width = config["max_position_embeddings"], config["hidden_size"] // 2
    rotated = int(width * config["rotary_pct"])
    for layer in range(config["num_hidden_layers"] if mask else 0):
        start = f"gpt_neox.layers.{layer}.attention."
        state[start + "bias"] = torch.ones(1, 1, length, length, dtype=mask).tril()
        state[start + "masked_bias"] = torch.tensor(-1e9).half()  # float16 has no such number
        state[start + "rotary_emb.inv_freq"] = (
            1e4 ** -(torch.arange(0, rotated, 2) / rotated)).half()
    return state


def rinna(folder: Path) -> Path:
    "rinna/japanese-gpt-neox-3.6b-instruction-sft: one file, and the same as a pickle beside it."
    train_sentencepiece(lines(), folder / "spiece.model", 500)
    dump(folder / "tokenizer_config.json", eos_token="</s>", unk_token="<unk>", pad_token="[PAD]",
         bos_token="<s>", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", extra_ids=0,
         additional_special_tokens=[], sp_model_kwargs={}, do_lower_case=False,
         tokenizer_class="T5Tokenizer")
    config = CONFIG | {"bos_token_id": 2, "eos_token_id": 3, "vocab_size": 500}
    state = old_state(config, torch.bool)
    dump(folder / "config.json", **config)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def line(folder: Path) -> Path:
    "line-corporation/japanese-large-lm-3.6b: the head is the embedding, begin and end are one id."
    train_sentencepiece(lines(), folder / "spiece.model", 500, symbols=(),
                        pad_id=-1, unk_id=0, bos_id=1, eos_id=2)
    dump(folder / "tokenizer_config.json", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
         pad_token="<pad>", extra_ids=0, additional_special_tokens=[], sp_model_kwargs={},
         tokenizer_class="T5Tokenizer")
    config = CONFIG | {"bos_token_id": 2, "eos_token_id": 2, "vocab_size": 512,
                       "tie_word_embeddings": True}
    state = old_state(config, torch.bool)
    dump(folder / "config.json", **config)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def byte_pairs(folder: Path, normalizer, before, spaces: bool) -> None:
    "A tokenizer.json of byte pairs, with or without runs of spaces as added tokens."
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, before
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(lines(), trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|endoftext|>", "<|padding|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if spaces:
        tokenizer.add_tokens([" " * n for n in range(24, 1, -1)])
    tokenizer.save(str(folder / "tokenizer.json"))


def open_calm(folder: Path) -> Path:
    "cyberagent/open-calm: weights in parts, more rows than tokens, a tokenizer.json with NFKC."
    byte_pairs(folder, normalizers.NFKC(), pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), spaces=False)
    dump(folder / "tokenizer_config.json", add_prefix_space=False, bos_token="<|endoftext|>",
         eos_token="<|endoftext|>", unk_token="<|endoftext|>", pad_token="<|padding|>",
         tokenizer_class="GPTNeoXTokenizer")
    dump(folder / "special_tokens_map.json", bos_token="<|endoftext|>",
         eos_token="<|endoftext|>", unk_token="<|endoftext|>", pad_token="<|padding|>")
    config = CONFIG | {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1, "vocab_size": 512}
    dump(folder / "config.json", **config)
    save_torch_state_dict(old_state(config, torch.bool), folder, max_shard_size="150KB",
                          metadata={"format": "pt"})
    return folder


def pythia(folder: Path) -> Path:
    "EleutherAI/pythia: parallel residual, a quarter of a head rotated, masks in bytes, no pad."
    byte_pairs(folder, normalizers.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=False),
               spaces=True)
    dump(folder / "tokenizer_config.json", add_prefix_space=False, bos_token="<|endoftext|>",
         eos_token="<|endoftext|>", unk_token="<|endoftext|>", name_or_path="gpt-neox-20b",
         tokenizer_class="GPTNeoXTokenizer")
    dump(folder / "special_tokens_map.json", bos_token="<|endoftext|>",
         eos_token="<|endoftext|>", unk_token="<|endoftext|>")
    config = CONFIG | {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": 576, "rotary_pct": 0.25,
                       "use_parallel_residual": True}
    state = old_state(config, torch.uint8)
    dump(folder / "config.json", **config)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(state, folder / "pytorch_model.bin")
    return folder


STAND_INS = {
    "rinna/japanese-gpt-neox-3.6b-instruction-sft": rinna,
    "line-corporation/japanese-large-lm-3.6b": line,
    "cyberagent/open-calm-small": open_calm,
    "EleutherAI/pythia-70m": pythia,
}
