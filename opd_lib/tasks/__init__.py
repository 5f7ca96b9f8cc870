"""Prompts and grading: the tiny world (`chain`); the real mathematics sets come later."""
