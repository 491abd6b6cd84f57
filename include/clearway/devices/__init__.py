"""Devices that several products share: who comes first, who makes room, and who used how much."""
