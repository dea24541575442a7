"""Latency predictors: from the measured latencies of some subnets to those of all."""
