"""Models: made, loaded, spread over processes."""
