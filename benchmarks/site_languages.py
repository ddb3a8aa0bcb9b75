"""What the second language costs: seconds to build the site with one and with both, by turns.

Each build begins from nothing, without the EPUB and the PDF, which are English.
"""
import shutil
import sys
import tempfile
import time
from pathlib import Path

from qlora_nb.core import machine, versions, write_json

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "docs"))
import build  # noqa: E402
from editions import EDITIONS, ENGLISH  # noqa: E402

ROUNDS = 2
RESULTS = Path(__file__).resolve().parent / "results" / "site_languages.json"


def seconds(editions: list) -> float:
    "Wall time of one build from nothing."
    shutil.rmtree(build.BUILD, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        build.build(editions, Path(folder) / "site", bound=False)
        return time.perf_counter() - begun


def main() -> None:
    build.vendor()
    rounds = [{"one": seconds([ENGLISH]), "both": seconds(EDITIONS)} for _ in range(ROUNDS)]
    ratio = sum(turn["both"] for turn in rounds) / sum(turn["one"] for turn in rounds)
    write_json(RESULTS, {"question": __doc__.splitlines()[0], "machine": machine(), "versions": versions(),
                         "seconds": rounds, "both_to_one": round(ratio, 2)})
    print(f"both languages: {ratio:.2f} x the time of one")


if __name__ == "__main__":
    main()
