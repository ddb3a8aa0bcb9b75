"""Output folders that cannot or must not be written."""
import json

from bad_inputs import Bad, micro_model

BEGUN = {"seed": 3, "overwrite": False, "batch_size": 32, "accumulation": 1}


def into(title, output, words, make=None, *more):
    "A fine-tune into a place that does not do."
    return Bad(title, ["finetune", f"--output={output}", *more], words, make=make)


def merged(title, words, make, *more, adapter="."):
    "A merged model into a place that does not do."
    return Bad(title, ["merge", "--adapter", adapter, "--output", "m", *more], words, make=make)


def file(name, content=""):
    "Lays out one file, in a folder of its own if the name says so."
    def make(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return make


def link(folder):
    (folder / "run").symlink_to("run")


def adapter(folder):
    "A folder that is an adapter, but of no run that could be replaced."
    file("own/adapter_config.json", '{"peft_type": "LORA"}')(folder)


ROWS = [
    into("an output that is a file", "run", ["run is a file"], file("run")),
    into("an output inside a file", "notes/run", ["cannot write", "notes"], file("notes")),
    into("the root of the file system as output", "/", ["'/'"], None, "--overwrite"),
    into("an output without a name", "", ["''"]),
    into("an output whose name is too long", "長" * 90, ["too long"]),
    into("an output whose name is no UTF-8", "run\udcff", ["udcff", "no UTF-8"]),
    into("a link to itself as output", "run", ["leads to itself"], link),
    into("an output where no folder can be made", "/proc/run", ["cannot write to /proc"]),
    into("the working folder of a run as output", "run.partial", ["give run"]),
    into("an output folder with other files", "mine", ["mine holds photo.jpg", "--output"],
         file("mine/photo.jpg")),
    into("--overwrite of a folder that holds no run", "mine", ["photo.jpg", "no run"],
         file("mine/photo.jpg"), "--overwrite"),
    into("--overwrite of somebody's adapter", "own", ["adapter_config.json", "no run"], adapter,
         "--overwrite"),
    into("a working folder that holds what no run made", "run", ["photo.jpg", "no run"],
         file("run.partial/photo.jpg"), "--overwrite"),
    into("a finished run without --overwrite", "run", ["--overwrite"],
         file("run/run.json", '{"options": {}}')),
    into("a record that breaks off", "run", ["run.json", "not JSON"],
         file("run/run.json", '{"options": {'), "--overwrite"),
    into("an interrupted run without --resume", "run", ["interrupted", "--resume"],
         file("run.partial/options.json", json.dumps(BEGUN))),
    into("nothing to resume", "rum", ["nothing to resume", "run.partial"],
         file("run.partial/options.json", json.dumps(BEGUN)), "--resume"),
    Bad("nothing to resume in runs", ["finetune", "--resume"], ["nothing to resume in runs"]),
    into("resuming with another seed", "run", ["--seed was 3 and is now 0", "leave them out"],
         file("run.partial/options.json", json.dumps(BEGUN)), "--resume", "--seed", "0"),
    into("resuming a finished run with another rank", "run", ["finished already", "--rank was 8"],
         file("run/run.json", json.dumps({"options": BEGUN | {"rank": 8}})), "--resume",
         "--rank", "4"),
    into("options of an interrupted run that break off", "run", ["options.json", "not JSON"],
         file("run.partial/options.json", '{"seed": '), "--resume"),
    into("a reporter that is not installed", "run", ["wandb", "pip install"], None,
         "--report-to", "wandb"),
    into("a reporter that nobody knows", "run", ["tensorboard"], None, "--report-to", "tensorbord"),
    merged("a merged model into a file", ["m is a file"], file("m")),
    merged("a merged model over other files", ["photo.jpg", "--output"], file("m/photo.jpg"),
           "--overwrite"),
    merged("a merged model over a model of somebody else", ["m holds", "--output"],
           lambda folder: micro_model(folder, "m"), "--overwrite"),
    merged("a merged model into the folder of its adapter", ["m holds adapter_config.json"],
           file("m/adapter_config.json", "{}"), "--overwrite", adapter="m"),
]
