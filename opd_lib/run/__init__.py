"""Running it all: one run, one notebook, the whole batch, and the `opd` command."""
