"""One module per system: how it is started, written to, read and ended."""
