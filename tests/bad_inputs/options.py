"""Options that cannot be meant."""
from bad_inputs import Bad


def refused(title, *options, words):
    "A fine-tune with wrong options."
    return Bad(title, ["finetune", *options, "--output", "run"], words)


def wrong_file(title, content, *options, words):
    "A fine-tune with a wrong configuration file."
    return Bad(title, ["finetune", "--config", "own.json", *options], words,
               make=lambda folder: (folder / "own.json").write_text(content, encoding="utf-8"))


ROWS = [
    refused("a rank of 0", "--rank", "0", words=["--rank is 0"]),
    refused("a rank above what a layer can hold", "--rank", "4000",
            words=["--rank 4000", "at most"]),
    refused("a layer that the model lacks", "--target-modules", "q_proj",
            words=["q_proj", "query_key_value"]),
    refused("a beginning that needs float weights", "--init", "pissa", words=["--init pissa", "4-bit"]),
    refused("a beginning that needs a GPU's quantizer", "--init", "loftq", words=["--init loftq"]),
    refused("a beginning with a typing error", "--init", "olara", words=["did you mean olora?"]),
    refused("a beginning that 4-bit codes would round", "--init", "orthogonal", words=["integers"]),
    refused("no process at all", "--processes", "0", words=["--processes is 0", "at least 1"]),
    refused("more processes than rows in a step", "--processes", "64", "--batch-size", "4",
            words=["64 processes", "4 rows", "fewer --processes"]),
    refused("a model split with nobody", "--shard", words=["--shard", "--processes"]),
    refused("codes in buffers that shall be split", "--shard", "--processes", "2", "--backend",
            "reference", words=["--shard", "bitsandbytes"]),
    refused("states that cannot be split", "--shard", "--processes", "2", "--optimizer", "adamw_8bit",
            words=["--optimizer adamw_8bit", "adamw_torch"]),
    refused("DoRA of halves of matrices", "--shard", "--processes", "2", "--dora", words=["--dora"]),
    refused("DoRA in this library's own layers", "--dora", "--backend", "reference",
            words=["--dora", "peft's layers"]),
    refused("LoRA+ that stands still", "--lora-plus", "0", words=["--lora-plus is 0.0"]),
    refused("a module that the model lacks", "--modules-to-save", "embed_tokens",
            words=["embed_tokens", "embed_in"]),
    refused("a module in 4 bits that shall train", "--modules-to-save", "dense",
            words=["dense is in 4 bits"]),
    refused("a new token that is there already", "--add-tokens", "</s>", words=["'</s>'", "already"]),
    refused("a new token twice", "--add-tokens", "<a>,<a>", words=["'<a>'", "twice"]),
    refused("a new token with nothing in it", "--add-tokens", "<a>,", words=["''", "nothing"]),
    refused("rows longer than the context", "--sequence-length", "100000", words=["context"]),
    refused("a preset with a typing error", "--preset", "guanako", words=["guanaco"]),
    refused("a learning rate that is no number", "--learning-rate", "nan",
            words=["--learning-rate"]),
    refused("--resume and --overwrite at once", "--resume", "--overwrite", words=["--resume"]),
    Bad("a command that does not exist", ["finetun"], ["finetune"]),
    Bad("an option before the command", ["--rank", "8", "finetune"], ["--rank", "belongs"]),
    Bad("words where only options are taken", ["finetune", "extra", "words"],
        ["unexpected argument 'extra'"]),
    refused("an option of another program", "--lora-alpha", "3", words=["did you mean --alpha?"]),
    Bad("an option without its value", ["finetune", "--rank"], ["--rank", "expected"]),
    refused("a number that is a word", "--rank", "eight", words=["--rank is 'eight'", "whole"]),
    refused("a whole number with a fraction", "--steps", "2.5", words=["--steps is '2.5'"]),
    refused("a choice that does not exist", "--quantization", "nf5", words=["did you mean nf4?"]),
    refused("a value for a switch", "--packing", "false", words=["unexpected argument 'false'"]),
    refused("more than every token dropped", "--dropout", "1", words=["--dropout is 1.0"]),
    refused("a learning rate above 1", "--learning-rate", "20", words=["--learning-rate is 20.0"]),
    refused("no pass over the data", "--epochs", "0", words=["--epochs is 0.0"]),
    refused("a configuration file that is not there", "--config", "gone.json",
            words=["gone.json", "No such file"]),
    wrong_file("a configuration that is no JSON", "rank: 8", words=["own.json", "JSON"]),
    wrong_file("a file of options that is a list", "[8]", words=["own.json", "no JSON object"]),
    wrong_file("a configuration with an unknown option", '{"ranks": 8}', words=["ranks", "rank"]),
    wrong_file("a configuration with a wrong type", '{"rank": true}', words=["--rank is True"]),
    wrong_file("a configuration with a fraction of a row", '{"held_out": 1.5}',
               words=["--held-out is 1.5", "whole"]),
    Bad("a list of runs where no folder is", ["runs", "nowhere"], ["nowhere"]),
    Bad("a push without a name", ["push", "."], ["owner/name"]),
    Bad("a push to what is no name", ["push", ".", "name"], ["'name'", "owner/name"]),
    Bad("a push of an empty folder", ["push", ".", "owner/name"], ["no adapter and no model"]),
    Bad("a shell that is not known", ["completion", "bosh"], ["unknown shell", "bash"]),
    Bad("a comparison without an adapter", ["chat", "--model", "micro", "--compare"],
        ["--compare"]),
    Bad("neither model nor adapter", ["generate", "--adapter", "none", "a"], ["--model"]),
    Bad("an adapter before the first run", ["generate", "空は？"], ["qlora-nb finetune first"]),
]
