"""Searches the space for the most accurate subnets that meet a latency target."""
