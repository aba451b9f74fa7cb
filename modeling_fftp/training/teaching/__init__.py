"""Learning from the answers of another model, or of the same at another stride."""
