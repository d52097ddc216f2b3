"""What travels between two stages: one interface, one file per implementation (design 7)."""
