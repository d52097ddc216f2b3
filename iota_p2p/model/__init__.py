"""The decoder, its stages, what travels between them, initial weights and optimizers. No network, no clock."""
