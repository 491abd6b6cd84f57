"""Clearway: a model from raw data to live traffic, and back again when the data drifts."""
