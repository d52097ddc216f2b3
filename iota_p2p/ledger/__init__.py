"""What a peer keeps of signed facts, on its own disk."""
