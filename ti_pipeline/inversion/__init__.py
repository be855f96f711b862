"""Textual inversion (Gal et al. 2022, arXiv 2208.01618): learning a word for a frozen generator."""
