"""Triggers: data about what to wait for, and one loop each."""
