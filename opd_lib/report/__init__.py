"""From the files of finished runs to tables, figures and verdicts. Nothing here imports torch."""
