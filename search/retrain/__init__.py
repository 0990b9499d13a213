"""Training again: the front confirmed, parts ablated, searches set beside controls."""
