"""Networks as pictures: one SVG each, light and dark, written by our own code."""
