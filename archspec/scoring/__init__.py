"""How good predictions are: Dice, surfaces, pairs of runs, and what exceeds noise."""
