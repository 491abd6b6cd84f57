"""Rollout strategies, one file each: a pure function (document, seen, now) → step."""
