"""What users put into `callbacks=`: early stopping's best state, the guard, and what follows a training."""
