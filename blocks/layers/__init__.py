"""Layers that components share; none has a spec of its own."""
