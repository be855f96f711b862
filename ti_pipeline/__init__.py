"""Textual inversion for hundreds of concepts: from image sets to CLIP-ranked galleries."""

__version__ = "0.1.0"
