"""Decide whether a dataset may be trained on: own checks, Great Expectations, distribution."""
