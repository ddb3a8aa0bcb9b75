"""Tokenizers that do not fit their model, or themselves."""

ROWS = []
