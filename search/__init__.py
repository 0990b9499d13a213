"""Architecture search: Dice against FLOPs, on nnU-Net data, with Optuna."""
