"""Spark: raw batches to point-in-time features; labels joined as known at one moment."""
