"""Retraining policies over a product's past: what each would have decided, and what it would have been worth."""
