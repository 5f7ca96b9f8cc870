"""The results site: static pages made from the committed notebooks, figures, claims, params, records and docstrings."""
