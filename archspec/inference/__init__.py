"""Masks of images, by a network from a file; nnU-Net's own classes do what it does."""
