"""Parts of the latency benchmarks: own profiles, public data, baselines, figures."""
