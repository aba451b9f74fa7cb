"""The demo: made sounds, a small model trained on them, a file classified. Run with `make demo`."""
