"""A causal language model: its shape, network, tokens and the task that an engine trains."""
