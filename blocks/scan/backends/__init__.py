"""Implementations of the two scan operators; `blocks.scan.dispatch` chooses among them."""
