"""Models of other families, laid out as their authors' files: trained, asked, merged, read by others."""
import json

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models
from transformers import (
    AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast,
)

from qlora_nb.adapters import load_adapted, merge
from qlora_nb.architectures import check_kind
from qlora_nb.bnb_layers import guard_cpu_layers
from qlora_nb.chat import Conversation, load_speaker
from qlora_nb.core import InputError
from qlora_nb.data import Collator, choose_format, encode_dialogue, prompt_ids
from qlora_nb.finetune import finetune
from qlora_nb.lean import IGNORED, training_loss
from qlora_nb.loading import load_quantized, quantization_config
from qlora_nb.models import load_base
from qlora_nb.options import ChatOptions, FinetuneOptions, GenerateOptions, MergeOptions
from qlora_nb.prepare import prepare
from qlora_nb.templates import ChatTemplate
from qlora_nb.tokenizer import load_tokenizer
from stand_ins import OTHERS

TALK = [{"role": "user", "content": "日本で一番高い山は？"},
        {"role": "assistant", "content": "富士山です。"}]


@pytest.fixture(scope="module", params=OTHERS)
def folder(request, tmp_path_factory):
    "A model's folder, named as on the hub."
    place = tmp_path_factory.mktemp("models") / request.param.replace("/", "--")
    place.mkdir()
    return OTHERS[request.param](place)


@pytest.fixture(scope="module")
def run(folder, small_data, tmp_path_factory):
    "Six steps of QLoRA on it."
    output = tmp_path_factory.mktemp("runs") / "run"
    record = finetune(FinetuneOptions(
        model=str(folder), data=str(small_data), output=str(output), steps=6, batch_size=8,
        accumulation=1, rank=8, learning_rate=2e-3, dropout=0.0, max_new_tokens=4, held_out=4,
        sequence_length=128))
    return output, record


def test_the_base_is_quantized_as_transformers_does(folder):
    theirs = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map={"": "cpu"},
        quantization_config=quantization_config("nf4", True, torch.float32)).state_dict()
    ours = load_quantized(folder).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_learns_and_says_what_it_did(run, folder):
    output, record = run
    losses = [row["loss"] for row in record["history"] if "loss" in row]
    assert losses[-1] < losses[0]
    assert record["base"]["format"] == ("plain" if "gpt2" in folder.name else "chat-template")
    exam = record["metrics"]["exams"]["held-out"]
    assert exam["after"]["loss"] < exam["before"]["loss"]


@torch.no_grad()
def test_plain_peft_and_the_merged_model_answer_as_ours(run, folder, tmp_path):
    output, record = run
    ids = torch.tensor([encode_dialogue(TALK, *_form(folder))["input_ids"]])
    ours = load_adapted(GenerateOptions(adapter=str(output)), torch.device("cpu"))[0](ids).logits
    base = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map={"": "cpu"},
        quantization_config=quantization_config("nf4", True, torch.float32))
    guard_cpu_layers(base)  # bitsandbytes' quick product for 16-bit answers rounds what it reads
    theirs = PeftModel.from_pretrained(base, output).eval()(ids).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    merged = merge(MergeOptions(adapter=str(output), output=str(tmp_path / "merged"),
                                dtype="float32"))
    plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    torch.testing.assert_close(plain(ids).logits, ours, rtol=0, atol=1e-3)
    said, own = (json.loads((place / "config.json").read_text(encoding="utf-8"))
                 for place in (merged, folder))
    assert said["torch_dtype"] == "float32" and said.get("rope_theta") == own.get("rope_theta")
    assert AutoTokenizer.from_pretrained(merged)("山は？")["input_ids"] == \
        AutoTokenizer.from_pretrained(folder)("山は？")["input_ids"]
    by_reference = load_adapted(GenerateOptions(adapter=str(output), backend="reference"),
                                torch.device("cpu"))[0]
    torch.testing.assert_close(by_reference(ids).logits, ours, rtol=0, atol=1e-4)


def _form(folder):
    tokenizer = load_tokenizer(folder)
    return tokenizer, choose_format(str(folder), tokenizer)


def test_a_text_begins_once(folder):
    tokenizer, form = _form(folder)
    for name in (form.name, "plain"):
        chosen = choose_format(name, tokenizer)
        ids, labels = encode_dialogue(TALK, tokenizer, chosen).values()
        first = next(place for place, label in enumerate(labels) if label != IGNORED)
        assert prompt_ids(TALK[:1], tokenizer, chosen) == ids[:first]
        if tokenizer.bos_token_id not in (None, tokenizer.eos_token_id):
            assert ids.count(tokenizer.bos_token_id) == 1 == ids.index(tokenizer.bos_token_id) + 1
    if isinstance(form, ChatTemplate):
        whole = tokenizer.apply_chat_template(TALK, return_dict=False)
        ids = encode_dialogue(TALK, tokenizer, form)["input_ids"]
        assert ids == whole[:len(ids)] and len(whole) - len(ids) <= 1


def test_a_chat_streams_what_generate_says(run, called):
    output, _ = run
    said = called("generate", "--adapter", output, "--max-new-tokens", 8, "山は？")
    assert said.returncode == 0, said.stderr
    options = ChatOptions(adapter=str(output), max_new_tokens=8)
    talk = Conversation(load_speaker(options), options)
    assert "".join(talk.say("山は？")).strip() == said.stdout.strip()


def test_our_own_layers_compute_and_train_it_too(folder):
    tokenizer, form = _form(folder)
    batch = Collator(tokenizer)([encode_dialogue(TALK, tokenizer, form)])
    losses = []
    for backend in ("bitsandbytes", "reference"):
        model = prepare(load_base(folder, backend=backend), rank=4, backend=backend)
        losses.append(training_loss(model, batch))
        losses[-1].backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert len(trained) >= 8 and all(p.grad is not None for p in trained)
    torch.testing.assert_close(*losses, rtol=0, atol=1e-4)


def test_a_turned_matrix_is_merged_as_the_authors_keep_it(small_data, tmp_path):
    folder = OTHERS["openai-community/gpt2"](tmp_path)
    run = FinetuneOptions(
        model=str(folder), data=str(small_data), output=str(tmp_path / "run"), steps=2,
        batch_size=4, accumulation=1, rank=4, max_new_tokens=2, held_out=2, sequence_length=128,
        quantization="none")
    finetune(run)
    merged = merge(MergeOptions(adapter=run.output, output=str(tmp_path / "merged")))
    before, after = (AutoModelForCausalLM.from_pretrained(place) for place in (folder, merged))
    assert {n: p.shape for n, p in before.named_parameters()} == {
        n: p.shape for n, p in after.named_parameters()}
    moved = after.transformer.h[0].mlp.c_fc.weight - before.transformer.h[0].mlp.c_fc.weight
    assert 0 < moved.abs().max() < .1


@pytest.mark.parametrize("kind, why", [
    ("fuyu", "takes images and text"), ("emu3", "takes images and text"), ("git", "images and text"),
    ("trocr", "behind an encoder"), ("bert-generation", "behind an encoder")])
def test_models_that_read_images_or_need_an_encoder_are_refused(kind, why):
    with pytest.raises(InputError, match=f"FOLDER is a '{kind}' model.*{why}.*expected a causal"):
        check_kind({"model_type": kind}, "FOLDER")


def test_a_refused_model_is_called_by_its_folder(called, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "config.json").write_text(
        '{"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 1}')
    for words in (["finetune", "--model", "state", "--dry-run"], ["memory", "state"]):
        done = called(*words)
        assert done.returncode == 2 and "state is a 'mamba' model, which keeps a" in done.stderr
        assert "the configuration is" not in done.stderr


def test_a_model_whose_activations_are_not_counted(called, tmp_path):
    (tmp_path / "neo").mkdir()
    AutoConfig.for_model("gpt_neo", hidden_size=64, num_layers=2, num_heads=4, vocab_size=401,
                         attention_types=[[["global", "local"], 1]]).save_pretrained(tmp_path / "neo")
    said = called("memory", "neo", "--gpu", "T4").stdout
    assert "without memory." in " ".join(said.split()) and "cuda:0" not in said


def test_a_tokenizer_without_its_unknown_token_is_refused(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"</s>": 0, "空": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(tmp_path)
    for family in ("gpt_neox", "llama"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": family, "vocab_size": 2}))
        with pytest.raises(InputError, match="cannot encode a text.*unknown token"):
            load_tokenizer(tmp_path)
