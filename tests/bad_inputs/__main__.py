"""Print the table of wrong inputs."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bad_inputs import table  # noqa: E402

for kind, row in table():
    print(f"{kind:<12} {row.title:<72} {' … '.join(map(str, row.words))}")
