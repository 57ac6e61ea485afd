"""Tabular benchmarks: every architecture of a space, trained once and looked up ever after."""
