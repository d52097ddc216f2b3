"""`iota-p2p doctor`: what keeps this machine from taking part, and the exact fix for it."""
