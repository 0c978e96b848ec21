"""What crosses a container boundary: standard library and pydantic only."""
