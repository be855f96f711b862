"""Setups beside each other: the same concepts, seeds and measures for each, and how sure one can be of the differences."""
