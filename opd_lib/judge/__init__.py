"""From records to verdicts: claims, the quantities they name, their intervals, and what predicts an outcome."""
