"""Verdicts about a candidate beside a concurrent control, valid at every look. Pure."""
