"""Small models with random weights, laid out as the files of the real ones are.

Names, shapes that hang together, dtypes, buffers and settings are those of the authors; only the
sizes and the values are not.
"""
import json
import shutil
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file
from tokenizers import (
    Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers,
)
from transformers import AutoConfig, AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

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


def save_twice(state: dict, folder: Path) -> None:
    "The weights as safetensors, and the same as a pickle beside it."
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(state, folder / "pytorch_model.bin")


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
    save_twice(state, folder)
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
    save_twice(state, folder)
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
    save_twice(state, folder)
    return folder


STAND_INS = {
    "rinna/japanese-gpt-neox-3.6b-instruction-sft": rinna,
    "line-corporation/japanese-large-lm-3.6b": line,
    "cyberagent/open-calm-small": open_calm,
    "EleutherAI/pythia-70m": pythia,
}


def tied_micro(folder: Path) -> Path:
    "A micro model whose head is its table, untrained, with the micro model's tokenizer."
    micro = micro_folder() / "model"
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(micro, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config, dtype=torch.float16).save_pretrained(folder)
    for file in ("spiece.model", "tokenizer_config.json"):
        shutil.copy(micro / file, folder)
    return folder


# Families other than the book's: tiny, and laid out as their authors' files were.
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.1,
         "max_position_embeddings": 256, "torch_dtype": "bfloat16", "use_cache": True,
         "transformers_version": "4.40.0"}
CHATML = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def byte_level(folder: Path, special: list[str], begin: str | None = None) -> int:
    "A tokenizer.json of bytes, whose special tokens come last; the number of its tokens."
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(lines(), trainers.BpeTrainer(
        vocab_size=400, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_special_tokens(special)
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))])
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer.get_vocab_size()


def random_weights(folder: Path, config: dict, left_out=(), shard: str = "5GB") -> Path:
    "config.json and bfloat16 weights from random numbers, in parts where they are larger than `shard`."
    dump(folder / "config.json", **config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).to(torch.bfloat16)
    state = {name: part.clone() for name, part in model.state_dict().items() if name not in left_out}
    save_torch_state_dict(state, folder, max_shard_size=shard, metadata={"format": "pt"})
    return folder


def llama3(folder: Path) -> Path:
    "meta-llama/Meta-Llama-3-8B-Instruct: no pad token, an end of turn beside the end of text, parts."
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
               "<|eot_id|>"]
    size = byte_level(folder, special, special[0])
    template = ("{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}"
                "<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
                "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n"
                "{% endif %}")
    dump(folder / "tokenizer_config.json", bos_token=special[0], eos_token="<|end_of_text|>",
         chat_template=template, tokenizer_class="PreTrainedTokenizerFast",
         clean_up_tokenization_spaces=True, model_max_length=10**30)
    dump(folder / "generation_config.json", bos_token_id=size - 5, eos_token_id=[size - 4, size - 1])
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64, "rope_type": "llama3"}
    return random_weights(folder, SIZES | {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "rope_scaling": scaling, "vocab_size": size,
        "bos_token_id": size - 5, "eos_token_id": size - 4, "tie_word_embeddings": False},
        shard="150KB")


def mistral(folder: Path) -> Path:
    "mistralai/Mistral-7B-Instruct: a tokenizer.model of byte pairs, [INST] without a token of its own."
    train_sentencepiece(lines(), folder / "tokenizer.model", 500, symbols=(), model_type="bpe",
                        normalization_rule_name="identity", add_dummy_prefix=True, pad_id=-1, unk_id=0, bos_id=1, eos_id=2)
    template = ("{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
                "{{ '[INST] ' + m.content + ' [/INST]' }}{% elif m.role == 'assistant' %}"
                "{{ ' ' + m.content + eos_token }}{% else %}"
                "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}")
    dump(folder / "tokenizer_config.json", add_bos_token=True, add_eos_token=False, bos_token="<s>",
         eos_token="</s>", unk_token="<unk>", chat_template=template, legacy=True,
         tokenizer_class="LlamaTokenizer", sp_model_kwargs={}, clean_up_tokenization_spaces=False)
    return random_weights(folder, SIZES | {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 64, "vocab_size": 500,
        "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False})


def qwen(folder: Path) -> Path:
    "Qwen/Qwen2.5-0.5B-Instruct: no begin token, a tied head that no file holds, rows to spare."
    byte_level(folder, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    dump(folder / "tokenizer_config.json", bos_token=None, eos_token="<|im_end|>",
         pad_token="<|endoftext|>", chat_template=CHATML, tokenizer_class="Qwen2Tokenizer",
         add_prefix_space=False, add_bos_token=False)
    return random_weights(folder, SIZES | {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "vocab_size": 512, "bos_token_id": 400,
        "eos_token_id": 402, "tie_word_embeddings": True, "use_sliding_window": False,
        "sliding_window": 256, "max_window_layers": 2}, left_out=["lm_head.weight"])


def gemma(folder: Path) -> Path:
    "google/gemma-2-2b-it: a tied head, squeezed logits, no system, and a token without a row."
    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<image_soft_token>"]
    size = byte_level(folder, special, "<bos>")
    template = ("{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
                "{{ raise_exception('System role not supported') }}{% endif %}<start_of_turn>"
                "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
                "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n"
                "{% endif %}")
    dump(folder / "tokenizer_config.json", bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
         chat_template=template, tokenizer_class="PreTrainedTokenizerFast")
    return random_weights(folder, SIZES | {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 16, "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6, "sliding_window": 64, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "vocab_size": size - 1, "pad_token_id": size - 6,
        "eos_token_id": size - 5, "bos_token_id": size - 4}, left_out=["lm_head.weight"])


def gpt2(folder: Path) -> Path:
    "openai-community/gpt2: names without a prefix, masks among the weights, matrices turned."
    byte_level(folder, ["<|endoftext|>"])
    dump(folder / "tokenizer_config.json", model_max_length=128, tokenizer_class="GPT2Tokenizer",
         bos_token="<|endoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>")
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 401,
              "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "n_ctx": 128,
              "bos_token_id": 400, "eos_token_id": 400, "initializer_range": 0.1,
              "activation_function": "gelu_new", "torch_dtype": "float32"}
    dump(folder / "config.json", **config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    state = {name.removeprefix("transformer."): part.clone()
             for name, part in model.state_dict().items() if name != "lm_head.weight"}
    mask = torch.ones(1, 1, 128, 128).tril()
    state |= {f"h.{layer}.attn.bias": mask.clone() for layer in range(2)}
    save_twice(state, folder)
    return folder


OTHERS = {
    "meta-llama/Meta-Llama-3-8B-Instruct": llama3,
    "mistralai/Mistral-7B-Instruct-v0.2": mistral,
    "Qwen/Qwen2.5-0.5B-Instruct": qwen,
    "google/gemma-2-2b-it": gemma,
    "openai-community/gpt2": gpt2,
}
