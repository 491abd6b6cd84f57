"""Drift and performance of the live model, and the decision to retrain."""
