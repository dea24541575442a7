"""What interleaved profiling is worth, against the plain way."""
