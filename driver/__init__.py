"""The driver: `python -m driver`. Never imports torch."""
