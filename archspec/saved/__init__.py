"""A network in one file: its weights with its spec, sizes and what its inputs are."""
