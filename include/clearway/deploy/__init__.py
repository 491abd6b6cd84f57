"""Move live traffic to an approved model, and back."""
