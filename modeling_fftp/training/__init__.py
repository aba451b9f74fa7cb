"""Training: arguments, data, trainer, and the run itself."""
