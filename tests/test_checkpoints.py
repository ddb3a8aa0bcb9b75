"""Checkpoints as people have them: what is odd and right trains, what is wrong is named."""
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import write_rows
from qlora_nb.adapters import load_adapted
from qlora_nb.core import InputError
from qlora_nb.micro import micro_folder
from qlora_nb.loading import fingerprint
from qlora_nb.models import load_base, read_config
from qlora_nb.options import GenerateOptions
from qlora_nb.tokenizer import load_tokenizer
from stand_ins import STAND_INS

MICRO = micro_folder() / "model"
FAST = ["--steps", "2", "--batch-size", "2", "--held-out", "1", "--eval-steps", "0",
        "--max-new-tokens", "2"]


@pytest.fixture
def few(tmp_path):
    "Eight rows."
    return write_rows(tmp_path / "few.jsonl", [
        {"instruction": f"{n}の次は何ですか。", "output": f"{n + 1}です。"} for n in range(8)])


def changed(folder, change):
    "Other weights in a folder's model.safetensors."
    file = folder / "model.safetensors"
    weights = change(load_file(file))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file,
              metadata={"format": "pt"})
    return folder


def with_buffers(weights: dict, layers: int, context: int) -> dict:
    "The three buffers that transformers saved with each layer until mid-2023, in float16."
    for layer in range(layers):
        start = f"gpt_neox.layers.{layer}.attention."
        weights[start + "bias"] = torch.ones(1, 1, context, context, dtype=torch.bool).tril()
        weights[start + "masked_bias"] = torch.tensor(-1e9).half()
        weights[start + "rotary_emb.inv_freq"] = (1e4 ** -(torch.arange(0, 64, 2) / 64)).half()
    return weights


def test_old_buffers_are_left_in_the_file(tmp_path, called, few):
    model = changed(shutil.copytree(MICRO, tmp_path / "old"),
                    lambda weights: with_buffers(weights, 4, 512))
    assert load_file(model / "model.safetensors")[
        "gpt_neox.layers.0.attention.masked_bias"] == -torch.inf
    done = called("finetune", *FAST, "--model", model, "--data", few, "--output", "run")
    assert done.returncode == 0, done.stderr
    plain, old = (load_base(folder, "none").state_dict() for folder in (MICRO, model))
    assert plain.keys() == old.keys() and all(torch.equal(plain[name], old[name]) for name in old)


def test_a_file_that_nothing_names_and_one_without_metadata(tmp_path):
    "What other programs leave beside the weights is not read; what they leave out is not missed."
    model = shutil.copytree(MICRO, tmp_path / "model")
    save_file({"x": torch.tensor([torch.nan])}, model / "consolidated.safetensors")
    before = fingerprint(MICRO)
    save_file(load_file(model / "model.safetensors"), model / "model.safetensors")  # no format: pt
    assert fingerprint(model) == before
    plain, other = (load_base(folder, "none").state_dict() for folder in (MICRO, model))
    assert all(torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.parametrize("backend", ["bitsandbytes", "reference"])
def test_four_bit_checkpoints_are_checked_too(tmp_path, backend):
    load_base(MICRO).save_pretrained(tmp_path / "whole")
    load_base(tmp_path / "whole", backend=backend)
    half = changed(shutil.copytree(tmp_path / "whole", tmp_path / "half"), lambda weights: {
        name: tensor for name, tensor in weights.items() if ".layers.2." not in name})
    with pytest.raises(InputError, match=r"lacks 12 .*gpt_neox\.layers\.2\."):
        load_base(half, backend=backend)


def test_a_tied_model_needs_no_head(tmp_path):
    model = changed(shutil.copytree(MICRO, tmp_path / "tied"), lambda weights: {
        name: tensor for name, tensor in weights.items() if "embed_out" not in name})
    with pytest.raises(InputError, match="embed_out.weight"):
        read_config(model)
    config = read_config(model, weights=False)
    config.tie_word_embeddings = True
    config.save_pretrained(model)
    loaded = load_base(model, "none")
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight


def authors_ids(folder, text):
    "The ids that the authors' own tokenizer gives."
    if (folder / "spiece.model").is_file():
        return SentencePieceProcessor(model_file=str(folder / "spiece.model")).encode(text)
    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids


@pytest.mark.parametrize("name", STAND_INS)
def test_a_checkpoint_as_its_authors_laid_it_out(name, tmp_path, called, few):
    "Fine-tune, ask, merge, and ask the merged model: by itself, and with transformers alone."
    folder = tmp_path / name
    folder.mkdir(parents=True)
    STAND_INS[name](folder)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    texts = ["空は何色ですか。", "  鰯 🐈\r\n", "１２３ ｶﾞﾗｽ <NL>"]
    tokenizer = load_tokenizer(folder)
    for text in texts:
        assert tokenizer(text).input_ids == authors_ids(folder, text)

    steps = ["finetune", *FAST, "--model", name, "--data", few, "--learning-rate", "0.01"]
    done = called(*steps, "--output", "run")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    form = "rinna" if "rinna" in name else "plain"  # the others are base models
    assert record["base"]["format"] == form
    said = called("generate", "空は何色ですか。", "--adapter", "run", "--max-new-tokens", "3")
    assert said.returncode == 0, said.stderr

    done = called("merge", "--adapter", "run", "--output", "merged", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
    merged, again = (loader.from_pretrained(tmp_path / "merged") for loader in
                     (AutoModelForCausalLM, AutoTokenizer))
    assert all(again(text).input_ids == authors_ids(folder, text) for text in texts)
    for ends in (again, merged.config, merged.generation_config):
        assert (ends.eos_token_id, ends.pad_token_id) == (tokenizer.eos_token_id,
                                                          tokenizer.pad_token_id)
    ids = torch.tensor([tokenizer(texts[0]).input_ids])
    adapted = load_adapted(GenerateOptions(adapter="run", device="cpu"), torch.device("cpu"))[0]
    with torch.no_grad():
        ours, theirs = adapted(ids).logits, merged.float()(ids).logits
    assert (ours - theirs).abs().max() < 1e-4 * ours.abs().max()
    alone = called("generate", "空は何色ですか。", "--model", "merged", "--max-new-tokens", "3")
    assert (alone.returncode, alone.stdout) == (0, said.stdout), alone.stderr


TEXT = "<|user|>札幌は<|sys|>北海道の <|user|>"


def test_added_tokens_keep_their_ids(tmp_path, called, few):
    "Whichever file names them; SentencePiece's own knows nothing of them."
    tokenizer = AutoTokenizer.from_pretrained(MICRO)
    tokenizer.add_tokens(["<|user|>", "<|sys|>"])
    model = AutoModelForCausalLM.from_pretrained(MICRO, dtype=torch.float16)
    model.resize_token_embeddings(len(tokenizer))
    for name in ("new", "old"):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        shutil.copy(MICRO / "spiece.model", tmp_path / name)
    (tmp_path / "old" / "tokenizer.json").unlink()  # as transformers 4 saved a slow tokenizer
    (tmp_path / "old" / "added_tokens.json").write_text('{"<|user|>": 2048, "<|sys|>": 2049}')
    config = json.loads((tmp_path / "old" / "config.json").read_text(encoding="utf-8"))
    del config["eos_token_id"]  # transformers then takes 2, which is this tokenizer's <s>
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    (tmp_path / "old" / "generation_config.json").unlink()
    expected = tokenizer(TEXT, add_special_tokens=False).input_ids
    assert expected[0] == expected[-1] == 2048
    for name in ("new", "old"):
        loaded = load_tokenizer(tmp_path / name)
        assert loaded(TEXT, split_special_tokens=True).input_ids == expected
        assert len(loaded) == 2050 and loaded.decode(expected) == tokenizer.decode(expected)
    done = called("finetune", *FAST, "--model", "old", "--data", few, "--output", "run")
    assert done.returncode == 0, done.stderr
    assert called("merge", "--adapter", "run", "--output", "merged").returncode == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert (model.generation_config.eos_token_id, model.config.eos_token_id) == (3, 3)
    merged = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert len(merged) == 2050 and merged(TEXT, add_special_tokens=False).input_ids == expected


def test_a_role_that_no_text_asks_for_may_lack_its_row(tmp_path):
    "transformers adds rinna's [MASK] and LINE's <pad> behind the vocabulary when it saves them."
    model = shutil.copytree(MICRO, tmp_path / "model")
    (model / "added_tokens.json").write_text('{"[MASK]": 2048}')
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"mask_token": "[MASK]"}))
    assert len(load_tokenizer(model)) == 2048
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "[MASK]"}))
    with pytest.raises(InputError, match=r"'\[MASK\]'.* id 2048"):
        load_tokenizer(model)
