"""The task definition as people and other programs get to see it."""
