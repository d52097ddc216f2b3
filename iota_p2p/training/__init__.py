"""What a peer does for a run: it holds stages, passes microbatches along pathways, and drives its own."""
