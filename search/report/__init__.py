"""The report of a run: page, picture, tables."""
