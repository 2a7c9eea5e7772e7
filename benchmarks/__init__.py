"""Figures for docs/performance.md: `python -m benchmarks NAME` repeats one of them."""
