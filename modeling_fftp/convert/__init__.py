"""Weights in: checkpoints of other packages as FFTP models."""
