"""Sweeps: spaces of designs, and what every design of one does."""
