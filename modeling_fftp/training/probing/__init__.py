"""Probes: light classifiers on the frozen states of a model."""
