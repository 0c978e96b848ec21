"""Safetensors files and LoRA adapters, for all stages that work on weights."""
