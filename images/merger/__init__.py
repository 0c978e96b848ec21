"""The merger image: stage MERGE, the adapter into the original base model."""
