"""Local networks of real processes."""
