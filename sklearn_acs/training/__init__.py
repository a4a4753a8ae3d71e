"""A `Training` trains a network: its loop and step, its selections, and everything that changes meanwhile."""
