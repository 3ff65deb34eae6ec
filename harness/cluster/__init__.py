"""Brings up the kind cluster: an engine, the tools, node images pulled or built, storage, metrics and a pod network."""
