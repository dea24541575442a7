"""Times subnets against a drifting machine: interleaved rounds around a fixed reference."""
