"""Model folders that are not what they say."""
from bad_inputs import Bad

ROWS = [
    Bad("a model's name that is neither folder nor repository",
        ["finetune", "--model", "no/such/folder"], ["no/such/folder"]),
    Bad("a model folder that is not there", ["finetune", "--model", "./missing"], ["./missing"]),
]
