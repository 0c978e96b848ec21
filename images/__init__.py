"""The stages that run in containers, a package for each image."""
