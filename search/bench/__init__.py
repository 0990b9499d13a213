"""Networks x datasets x folds x seeds: trained, compared, and told as a paper tells it."""
