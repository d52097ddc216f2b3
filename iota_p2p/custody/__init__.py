"""Keeping the states of stages: signed, cut into chunks, pushed to peers elsewhere, and brought back from them."""
