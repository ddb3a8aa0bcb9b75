"""What did GPT-4 say of pairs of answers to the Vicuna prompts, in English and in Japanese?

    python benchmarks/verdicts.py                       fetch the authors' files from GitHub
    python benchmarks/verdicts.py --guanaco A.csv --ja B.csv --scores FOLDER

The first form reads artidoro/qlora (MIT licence) and ku-nlp/ja-vicuna-qa-benchmark (Apache-2.0); the
second, files that are there already: verdicts as CSV with question_id, model_a, model_b and verdict
(1: the first answer is better, 2: the second, 3: a tie, -1: unreadable), and a folder with the two
score files. One character is kept for each verdict, prompt after prompt, and no text.
Writes benchmarks/results/verdicts.json.
"""
import argparse
import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.request import urlopen

from qlora_nb.core import write_json

RESULTS = Path(__file__).parent / "results" / "verdicts.json"
QLORA = "https://api.github.com/repos/artidoro/qlora/contents/eval/ratings-gpt4/vicuna"
JA = ("https://api.github.com/repos/ku-nlp/ja-vicuna-qa-benchmark/contents/"
      "data/jp_bench/model_judgment/pairwise/gpt-4")
OTHERS = {"answer-bard": "Bard", "answer-gpt35": "ChatGPT-3.5", "answer-gpt4": "GPT-4",
          "answer-vicuna-13b": "Vicuna-13B", "gpt-3.5": "ChatGPT-3.5"}
# The scores behind "99.3 % of ChatGPT": file -> the commit of artidoro/qlora that holds it. The second
# goes by an older name of Guanaco; the ids of the answers in both files are the same.
SCORED = {
    "65b-guanaco-vicuna-generations-topp0.9-temp0.7-vs-gpt-3.5-gpt4-reviewer.jsonl":
        "05daee4ead5387636f6caf06a7941db789e75900",
    "gpt-3.5-vs-65b-oassist-vicuna-generations-topp0.9-beam1-gpt4-reviewer.jsonl":
        "ccdea9d783f0be27fd35d63602f8e03fa29b8fe0"}
SCORES = "eval/ratings-gpt4/vicuna/relative-gpt-3.5"


def system(name: str) -> str:
    "A system as the paper calls it; its 33B is 30b in the files, and Guanaco is oassist in older ones."
    if name in OTHERS:
        return OTHERS[name]
    size = re.match(r"(\d+)b-(guanaco|oassist)-", name)
    if not size:
        raise ValueError(f"no system is known by the name {name!r}")
    return f"Guanaco-{ {'30': '33'}.get(size[1], size[1]) }B"


def pair_of(file: str) -> tuple[str, str]:
    "The systems of a file of reviews: first and second answer."
    stem = re.sub(r"-(gpt-4-reviewer-threeclass|gpt4-reviewer)\.jsonl$", "", file)
    one, _, other = stem.partition("-vs-")
    return system(one), system(other)


def rows(text: str) -> Iterator[dict]:
    return (json.loads(line) for line in text.splitlines() if line.strip())


def guanaco_verdicts(files: dict[str, str]) -> Iterator[tuple]:
    "(prompt, first, second, verdict) of every review; files: name -> text."
    for name, text in files.items():
        one, other = pair_of(name)
        for row in rows(text):
            yield int(row["question_id"]), one, other, row["score"]


def ja_verdicts(files: dict[str, str]) -> Iterator[tuple]:
    "The same of FastChat's rows, which hold both games: model_1 is first in the one, second in the other."
    for text in files.values():
        for row in rows(text):
            one, other, number = row["model_1"], row["model_2"], int(row["question_id"])
            signs = {"model_1": (1, 2), "model_2": (2, 1), "tie": (3, 3)}
            yield number, one, other, signs.get(row["g1_winner"], (-1, -1))[0]
            yield number, other, one, signs.get(row["g2_winner"], (-1, -1))[1]


def packed(verdicts: Iterable[tuple]) -> dict[str, str]:
    "first|second -> one character for each prompt from 1 on; an unreadable or missing verdict is '-'."
    found: dict[str, dict[int, str]] = {}
    for number, one, other, verdict in verdicts:
        sign = str(verdict) if str(verdict) in ("1", "2", "3") else "-"
        found.setdefault(f"{one}|{other}", {})[number] = sign
    last = max(number for signs in found.values() for number in signs)
    return {pair: "".join(found[pair].get(n, "-") for n in range(1, last + 1)) for pair in sorted(found)}


def score_pairs(files: dict[str, str]) -> dict[str, str]:
    "first|second -> the two scores of each prompt, as in '9/8.5 7/7'."
    found = {}
    for name, text in sorted(files.items()):
        scores = {int(row["question_id"]): row["score"] for row in rows(text)}
        found["|".join(pair_of(name))] = " ".join(
            "/".join(f"{score:g}" for score in scores[number]) for number in sorted(scores))
    return found


def fetched(folder: str) -> dict[str, str]:
    "name -> text of the .jsonl files in a folder on GitHub."
    listing = json.loads(urlopen(folder, timeout=60).read())
    return {entry["name"]: text_at(entry["download_url"]) for entry in listing
            if entry["name"].endswith(".jsonl")}


def text_at(address: str) -> str:
    return urlopen(address, timeout=60).read().decode("utf-8")


def scored_at(name: str) -> str:
    "The address of a file of scores, at the commit that holds it."
    return f"https://raw.githubusercontent.com/artidoro/qlora/{SCORED[name]}/{SCORES}/{name}"


def of_csv(path: Path) -> Iterator[tuple]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield int(row["question_id"]), row["model_a"], row["model_b"], row["verdict"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--guanaco", type=Path, help="a CSV file instead of artidoro/qlora")
    parser.add_argument("--ja", type=Path, help="a CSV file instead of ku-nlp/ja-vicuna-qa-benchmark")
    parser.add_argument("--scores", type=Path, help="a folder with the two files of scores")
    given = parser.parse_args()
    guanaco = (of_csv(given.guanaco) if given.guanaco else
               guanaco_verdicts(fetched(f"{QLORA}/pairwise")))
    ja = of_csv(given.ja) if given.ja else ja_verdicts(fetched(JA))
    scores = ({name: (given.scores / name).read_text(encoding="utf-8") for name in sorted(SCORED)}
              if given.scores else {name: text_at(scored_at(name)) for name in sorted(SCORED)})
    write_json(RESULTS, {
        "guanaco": {"source": "artidoro/qlora, eval/ratings-gpt4/vicuna/pairwise",
                    "licence": "MIT, (c) 2023 Artidoro Pagnoni, Tim Dettmers", "verdicts": packed(guanaco)},
        "ja": {"source": "ku-nlp/ja-vicuna-qa-benchmark, data/jp_bench/model_judgment/pairwise/gpt-4",
               "licence": "Apache-2.0", "verdicts": packed(ja)},
        "scores": score_pairs(scores),
        "scores_from": {"|".join(pair_of(name)): scored_at(name) for name in sorted(SCORED)},
    })


if __name__ == "__main__":
    main()
