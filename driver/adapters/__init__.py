"""One home for each outside system that only the driver speaks to."""
