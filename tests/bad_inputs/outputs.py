"""Output folders that cannot or must not be written."""

ROWS = []
