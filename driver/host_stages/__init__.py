"""Stages that act on the outside world, run in the driver itself."""
