"""Responses: by the model's own forward pass, by the same compiled, by vLLM; in turns with a tool."""
