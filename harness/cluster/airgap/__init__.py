"""Builds the node image and everything in it from package registries alone, each part cached by its inputs."""
