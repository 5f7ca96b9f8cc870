"""From prompts to gradients: models, sampling, scoring, evaluation and the one training loop (`train`)."""
