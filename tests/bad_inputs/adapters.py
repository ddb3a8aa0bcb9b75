"""Adapters that are damaged, fit nothing, or hold what cannot be merged."""
from bad_inputs import Bad

ROWS = [
    Bad("an adapter that is not there", ["generate", "--adapter", "./nowhere", "a"], ["nowhere"]),
]
