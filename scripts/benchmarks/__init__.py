"""What `scripts/bench` runs: every figure is a difference or a ratio taken in one run on one machine."""
