"""Figures side by side: `python -m benchmarks.NAME [--quick]`, one JSON line for each case."""
