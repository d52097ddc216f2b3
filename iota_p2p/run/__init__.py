"""What a run is: its spec, its data and which data each microbatch holds. Nothing here needs torch."""
