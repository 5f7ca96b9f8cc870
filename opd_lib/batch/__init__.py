"""A whole batch: its jobs, Snakemake, clusters; notebooks executed, drawn and written again."""
