"""The task held against the outside: one module for each place where it is written a second time.

Nothing here writes: a patch is printed, and whoever owns the backend's code applies it.
"""
