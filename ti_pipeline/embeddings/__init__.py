"""Embedding files: what was learnt, with its provenance, and the files that other tools write."""
