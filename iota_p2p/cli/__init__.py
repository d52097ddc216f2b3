"""The `iota-p2p` command: one module per verb."""
