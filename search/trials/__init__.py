"""One trial: its data, its training and scoring, and the processes it runs in."""
