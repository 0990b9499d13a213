"""A spec or a space to begin with: fitted to sizes, as wide as a budget allows, with comments."""
