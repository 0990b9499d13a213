"""How a network is trained: the recipe as PyTorch parts, one step, devices."""
