"""The embedded model: weights of a small text-to-image generator, a ranker and a judge. See the README beside them."""
