"""Whole swarms in one process, for what needs many peers and no real network."""
