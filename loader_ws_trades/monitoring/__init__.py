"""What others see of a run: metrics, probes, progress."""
