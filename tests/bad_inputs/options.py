"""Options that cannot be meant."""
from bad_inputs import Bad


def refused(title, *options, words):
    "A fine-tune with wrong options."
    return Bad(title, ["finetune", *options, "--output", "run"], words)


ROWS = [
    refused("a rank of 0", "--rank", "0", words=["--rank is 0"]),
    refused("a rank above what a layer can hold", "--rank", "4000",
            words=["--rank 4000", "at most"]),
    refused("a layer that the model lacks", "--target-modules", "q_proj",
            words=["q_proj", "query_key_value"]),
    refused("rows longer than the context", "--sequence-length", "100000", words=["context"]),
    refused("a preset with a typing error", "--preset", "guanako", words=["guanaco"]),
    refused("a learning rate that is no number", "--learning-rate", "nan",
            words=["--learning-rate"]),
    refused("--resume and --overwrite at once", "--resume", "--overwrite", words=["--resume"]),
]
