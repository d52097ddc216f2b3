"""Text from a network's current model, asked for by somebody who takes no part; needs no torch."""
