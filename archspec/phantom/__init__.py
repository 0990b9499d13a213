"""Make synthetic nnU-Net datasets whose answer needs evidence from far away."""
