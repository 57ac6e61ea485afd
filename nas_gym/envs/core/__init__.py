"""Mechanics that all environments share."""
