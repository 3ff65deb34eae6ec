"""Jarvis and its rivals side by side, in one run on one machine."""
