"""The training engine: knows torch, and nothing of tables, text or releases."""
