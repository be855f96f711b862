"""The paper's two axes, reconstruction and editability, on fresh samples that nobody curated."""
