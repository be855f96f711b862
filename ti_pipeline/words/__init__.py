"""Learnt words: their vectors, where they come from, and the files that hold them."""
