"""The tabular torch model and its training loop, shared by tune and train."""
