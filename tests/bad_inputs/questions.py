"""Questions and how they are asked."""

ROWS = []
