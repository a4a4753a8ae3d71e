"""Trained things go into files and come back: no code is in these, and none runs when they are read."""
