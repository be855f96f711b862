"""Textual inversion for hundreds of concepts: from image sets to CLIP-ranked galleries."""

import sys

from ti_pipeline.waiting import choose_waiting

__version__ = "0.1.0"

if "torch" not in sys.modules:
    choose_waiting()
