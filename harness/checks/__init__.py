"""Judges a cluster and a deployment by checks that are data; rendering them is the report's."""
