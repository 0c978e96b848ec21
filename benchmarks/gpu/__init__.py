"""The trainer on a GPU, at Qwen3-14B's real shape: `python -m benchmarks.gpu`."""
