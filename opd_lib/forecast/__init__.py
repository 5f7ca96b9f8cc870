"""What a run takes before it starts: arithmetic, memory, hours."""
