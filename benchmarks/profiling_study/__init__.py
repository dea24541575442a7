"""What interleaved profiling is worth, against the plain way: one subnet after the other."""
