"""How the embedded model was made: data, training, measurement and card. See README.md."""
