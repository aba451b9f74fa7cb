"""Training on events, with beginning and end: their metrics, thresholds and filters, and evaluation."""
