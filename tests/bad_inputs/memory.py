"""What `qlora-nb memory` is asked in vain: words, configurations, and files that are none."""
import json

from bad_inputs import Bad

CONFIG = {
    "model_type": "gpt_neox", "hidden_size": 2816, "num_hidden_layers": 36,
    "num_attention_heads": 22, "vocab_size": 32_000, "intermediate_size": 11_264,
    "max_position_embeddings": 2048, "use_parallel_residual": False, "rotary_pct": 1.0,
    "tie_word_embeddings": False,
}


def asked(title, *arguments, words):
    "The command with wrong words."
    return Bad(title, ["memory", *arguments], words)


def configured(title, changes: dict, words):
    "A folder whose configuration is changed; None leaves a key out."
    config = {key: value for key, value in (CONFIG | changes).items() if value is not None}
    return written(title, json.dumps(config), words)


def written(title, text: str, words):
    "A folder with `text` for its configuration."
    def make(folder):
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text(text, encoding="utf-8")
    return Bad(title, ["memory", "model"], words, make=make)


ROWS = [
    asked("no GPU at all", "micro", "--processes", "0", words=["--processes"]),
    asked("a ledger split with nobody", "micro", "--shard", words=["--shard", "--processes"]),
    asked("memory of a model with a typing error", "rinna/japanese-neox-3.6",
          words=["rinna/japanese-gpt-neox-3.6b"]),
    asked("memory of a family's member with a typing error", "lama-7b", words=["llama-7b"]),
    asked("memory of a folder that is not there", "./missing", words=["missing", "config.json"]),
    asked("memory of nothing", words=["wants a model"]),
    asked("memory of two models, one of which nobody knows", "micro", "llama-8b",
          words=["llama-8b", "llama-7b"]),
    asked("memory on a GPU that nobody sells", "micro", "--gpu", "T5", words=["'T5'", "T4"]),
    asked("memory on a GPU with two digits changed", "micro", "--gpu", "rtx3900",
          words=["RTX3090"]),
    asked("memory at rank 0", "micro", "--rank", "0", words=["--rank is 0"]),
    asked("memory of less than one row", "micro", "--batch-size", "-1",
          words=["--batch-size is -1"]),
    asked("memory of rows without tokens", "micro", "--sequence-length", "0",
          words=["--sequence-length is 0"]),
    asked("memory of one token more than the context", "micro", "--sequence-length", "513",
          words=["513", "at most 512"]),
    asked("memory with a layer that the model lacks", "micro", "--target-modules", "q_proj",
          words=["q_proj", "query_key_value"]),
    asked("memory with dropout above 1", "micro", "--dropout", "1.5", words=["dropout is 1.5"]),
    asked("memory with an option's name mistyped", "micro", "--ranks", "3", words=["--rank"]),
    configured("a configuration without its width", {"hidden_size": None},
               ["lacks hidden_size", "config.json"]),
    configured("a configuration without width and vocabulary",
               {"hidden_size": None, "vocab_size": None}, ["hidden_size", "vocab_size"]),
    configured("a configuration of another family", {"model_type": "bert"}, ["bert", "GPT-NeoX"]),
    configured("a configuration without layers", {"num_hidden_layers": 0},
               ["num_hidden_layers", "is 0", "at least 1"]),
    configured("a vocabulary below zero", {"vocab_size": -32_000}, ["vocab_size", "-32000"]),
    configured("a vocabulary with a fraction", {"vocab_size": 3.5}, ["vocab_size", "3.5"]),
    configured("a width in words", {"hidden_size": "wide"}, ["hidden_size", "wide"]),
    configured("a feed-forward width below zero", {"intermediate_size": -1},
               ["intermediate", "-1"]),
    configured("a context of no tokens", {"max_position_embeddings": 0}, ["context", "0"]),
    configured("heads that do not divide the width", {"num_attention_heads": 21}, ["2816", "21"]),
    configured("a rotated share in words", {"rotary_pct": "all"}, ["rotary", "all"]),
    configured("rope parameters that are a number", {"rope_parameters": 3}, ["rope_parameters"]),
    configured("a family with several experts", {"model_type": "mixtral", "num_local_experts": 8},
               ["mixtral", "num_local_experts"]),
    configured("biases that its family lacks", {"attention_bias": False},
               ["attention_bias True"]),
    written("a configuration that breaks off", "{", ["config.json", "JSON"]),
    written("a configuration that is a list", "[]", ["no JSON object"]),
    written("a configuration that is null", "null", ["no JSON object"]),
]
