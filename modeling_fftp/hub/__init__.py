"""Trained folders on the Hub: card, efficiency figures, push."""
