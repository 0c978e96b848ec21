"""How a stage is run: in a container, or as a process."""
