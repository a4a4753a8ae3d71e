"""The training loop: a skorch net, its batches, the schedule of coresets, and what it all cost."""
