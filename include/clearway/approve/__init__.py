"""Bind a decision to exact bytes: who approved which model digest on which evaluation."""
