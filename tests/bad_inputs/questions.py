"""Questions and how they are asked."""
from bad_inputs import Bad

ASKED = "札幌市はどこですか。"


def asked(title, *prompts, words, stdin=None):
    "Questions to an adapter, which are refused before it is opened: its folder is empty."
    return Bad(title, ["generate", "--adapter", "./empty", *prompts], words,
               make=lambda folder: (folder / "empty").mkdir(), stdin=stdin)


ROWS = [
    asked("no question at all", words=["nothing to answer"], stdin=b""),
    asked("blank lines as questions", words=["nothing to answer"], stdin=b"\n  \n\n"),
    asked("an empty prompt", "", words=["empty"]),
    asked("an empty prompt beside a question", ASKED, "  ", words=["empty"]),
    asked("piped questions in CP932", words=["not UTF-8", "iconv"], stdin=ASKED.encode("cp932")),
    asked("piped questions in UTF-16 without its mark", words=["not UTF-8"],
          stdin="2 + 2?".encode("utf-16-le")),
    asked("piped bytes that are no text", words=["not UTF-8"], stdin=bytes(range(256))),
    asked("an argument in CP932", ASKED.encode("cp932").decode("utf-8", "surrogateescape"),
          words=["not UTF-8"]),
    asked("half a character as an argument", "空\ud83d", words=["not UTF-8"]),
    asked("a negative temperature", "--temperature", "-1", ASKED, words=["--temperature is -1.0"]),
    asked("an infinite temperature", "--temperature", "inf", ASKED, words=["--temperature is inf"]),
    asked("a mass of likeliest tokens above 1", "--top-p", "5", ASKED, words=["--top-p is 5.0"]),
    asked("a mass of no tokens", "--top-p", "0", ASKED, words=["--top-p is 0.0", "above 0"]),
    asked("an answer of no tokens", "--max-new-tokens", "0", ASKED, words=["--max-new-tokens is 0"]),
    asked("a negative seed", "--seed", "-1", ASKED, words=["--seed is -1"]),
]
