"""Measurements side by side with peers. Each module writes its table to benchmarks/results/."""
