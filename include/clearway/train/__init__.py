"""Fit the torch model through torchrun and write a signed model package."""
