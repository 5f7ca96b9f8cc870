"""Numbers about tokens, runs and seeds. Import the module you need: this package loads nothing by itself."""
