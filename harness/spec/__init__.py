"""What may be configured: the values schema, files that follow it, and everything generated from it."""
