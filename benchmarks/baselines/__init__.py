"""Recorded searches of every agent, and the table that the README shows of them."""
