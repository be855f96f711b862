"""Side-by-side measurements: `python -m benchmarks.training` and the others, one command each."""
