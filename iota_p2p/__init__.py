"""A running iota-p2p peer: network, commands and, later, training, validation and settlement."""
