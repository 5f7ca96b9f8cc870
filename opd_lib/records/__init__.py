"""What a run leaves: its folder as it is written and as it is read, and the papers' own numbers."""
