"""Model folders that are not what they say."""
import json

import torch
from safetensors.torch import load_file, save_file

from bad_inputs import Bad, edit_json, micro_model, write_rows

ROWS_OF_DATA = [{"instruction": f"{n}の次は何ですか。", "output": f"{n + 1}です。"} for n in range(4)]
TRAIN = ["finetune", "--model", "model", "--data", "rows.jsonl", "--held-out", "1",
         "--output", "run"]


def spoiled(title, spoil, words):
    "A fine-tune of the micro model, with whatever `spoil` does to its folder."
    def make(folder):
        write_rows(folder / "rows.jsonl", ROWS_OF_DATA)
        spoil(micro_model(folder))
    return Bad(title, TRAIN, words, make=make)


def config(title, words, **changes):
    "Another value in config.json."
    return spoiled(title, lambda model: edit_json(model / "config.json", **changes), words)


def weights(title, change, words):
    "Other weights: `change` takes and gives a dictionary."
    def spoil(model):
        file = model / "model.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in change(load_file(file)).items()},
                  file, metadata={"format": "pt"})
    return spoiled(title, spoil, words)


def content(title, name, text, words):
    "Another content of a file, or None for no such file."
    def spoil(model):
        (model / name).unlink(missing_ok=True)
        if text is not None:
            (model / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return spoiled(title, spoil, words)


def renamed(old, new):
    "Rename the file of the weights."
    return lambda model: (model / old).rename(model / new)


def in_parts(model):
    "An index of two parts, of which one is there."
    renamed("model.safetensors", "model-00001-of-00002.safetensors")(model)
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))


def index(text):
    "A file of parts with an index of this content."
    def spoil(model):
        renamed("model.safetensors", "model-00001-of-00001.safetensors")(model)
        (model / "model.safetensors.index.json").write_text(text)
    return spoil


def cut(model):
    "A download that broke off."
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100_000])


def with_nan(tensors):
    tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"][3, 5] = torch.nan
    return tensors


def without(part):
    return lambda tensors: {name: t for name, t in tensors.items() if part not in name}


def half_as_wide(tensors):
    "A feed-forward layer of another size than the configuration's."
    return {name: t[:384] if "dense_h_to_4h" in name else t for name, t in tensors.items()}


def adapter_beside(model):
    (model / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')


def as_file(folder):
    write_rows(folder / "rows.jsonl", ROWS_OF_DATA)
    (folder / "model").write_text("no folder")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5140000\n"

ROWS = [
    Bad("a model's name that is neither folder nor repository",
        ["finetune", "--model", "no/such/folder"], ["no/such/folder"]),
    Bad("a model folder that is not there", ["finetune", "--model", "./missing"], ["./missing"]),
    Bad("a file where a model folder is meant", TRAIN, ["'model'"], make=as_file),
    content("a model folder without config.json", "config.json", None, ["config.json"]),
    content("a config.json that breaks off", "config.json", '{"model_type": ', ["config.json"]),
    content("a config.json that is a list", "config.json", "[]", ["config.json", "list"]),
    config("a model of another family than its weights", ["lacks 55", "lm_head.weight"],
           model_type="llama"),
    config("an encoder with a decoder", ["'t5'", "decoder", "causal language model"],
           model_type="t5", is_encoder_decoder=True),
    config("an encoder", ["'bert'", "next token", "Llama"], model_type="bert"),
    config("a model that sees", ["'gemma3'", "vision_config", "text alone"], model_type="gemma3",
           vision_config={}),
    config("a mixture of experts", ["'mixtral'", "num_local_experts", "bitsandbytes"],
           model_type="mixtral", num_local_experts=8),
    config("a model that keeps a state", ["'mamba'", "state"], model_type="mamba"),
    config("a family that nobody knows", ["'gpt_neoz'", "does not know"], model_type="gpt_neoz"),
    config("a model with code of its own", ["auto_map"], auto_map={"AutoModel": "a.B"}),
    config("a model quantized by another method", ["gptq"],
           quantization_config={"quant_method": "gptq", "bits": 4}),
    config("a width that the heads do not divide", ["config.json", "heads"],
           num_attention_heads=5),
    config("a context length that is text", ["config.json", "max_position_embeddings"],
           max_position_embeddings="512"),
    config("an activation that nobody knows", ["config.json", "gelu_what"],
           hidden_act="gelu_what"),
    config("a vocabulary smaller than nothing", ["config.json", "-1"], vocab_size=-1),
    config("an end token outside the vocabulary", ["eos_token_id 50256", "vocab_size 2048"],
           eos_token_id=50256),
    config("more layers in config.json than in the file", ["lacks 24", "gpt_neox.layers.4."],
           num_hidden_layers=6),
    config("fewer layers in config.json than in the file", ["24 weights", "gpt_neox.layers.2."],
           num_hidden_layers=2),
    weights("weights without the output head", without("embed_out"), ["embed_out.weight"]),
    weights("weights without a bias", without("layers.3.attention.dense.bias"),
            ["gpt_neox.layers.3.attention.dense.bias"]),
    weights("names that begin with module.", lambda tensors: {
        f"module.{name}": tensor for name, tensor in tensors.items()}, ["'module.'"]),
    weights("embeddings longer than config.json says", lambda tensors: {
        name: torch.cat([t, t[:64]]) if "embed_" in name else t for name, t in tensors.items()},
        ["2112 rows", "embed_", "vocab_size 2048"]),
    weights("embeddings that a partitioned training left empty", lambda tensors: {
        name: t[:0].flatten() if "embed_" in name else t for name, t in tensors.items()},
        ["(0,)", "embed_", "(2048, 192)"]),
    config("a dtype that torch does not have", ["config.json", "fp16"], dtype="fp16"),
    weights("a layer narrower than config.json says", half_as_wide,
            ["gpt_neox.layers.0.mlp.dense_h_to_4h", "384", "768"]),
    weights("a NaN among the weights", with_nan,
            ["1 NaN", "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"]),
    spoiled("a download of the weights that broke off", cut, ["model.safetensors", "damaged"]),
    content("a note of Git LFS in place of the weights", "model.safetensors", LFS,
            ["git lfs pull"]),
    spoiled("weights only as a pickle", renamed("model.safetensors", "pytorch_model.bin"),
            ["pytorch_model.bin", "pickle"]),
    spoiled("weights under another name", renamed("model.safetensors", "weights.safetensors"),
            ["weights.safetensors", "model.safetensors"]),
    content("a model folder without weights", "model.safetensors", None, ["no weights"]),
    spoiled("a part of the weights that is missing", in_parts,
            ["model-00002-of-00002.safetensors"]),
    spoiled("an index of parts that is no index", index("{}"), ["model.safetensors.index.json"]),
    spoiled("an adapter in the model's folder", adapter_beside, ["adapter_config.json"]),
    Bad("an adapter where a model is meant", TRAIN, ["adapter_config.json"],
        make=lambda folder: (write_rows(folder / "rows.jsonl", ROWS_OF_DATA),
                             adapter_beside(micro_model(folder)),
                             (folder / "model" / "config.json").unlink())),
]
