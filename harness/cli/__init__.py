"""The commands: read arguments, call the rooms below, turn what they say into an exit status."""
