"""The `opd` command: what a person types, and the process in which its jobs start at once."""
