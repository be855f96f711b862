"""One module a family of text-to-image models."""
