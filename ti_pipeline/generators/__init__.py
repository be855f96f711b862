"""Frozen text-to-image models and the placeholder words that are put into them from outside."""
