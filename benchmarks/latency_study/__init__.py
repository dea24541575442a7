"""The latency benchmarks' parts: public data, baselines, figures."""
