"""What anybody can check of a run's scores with nothing but files: no network, no torch."""
