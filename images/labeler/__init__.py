"""The labeler's stages: label, split, evaluate. Nothing in here knows a task's fields."""
