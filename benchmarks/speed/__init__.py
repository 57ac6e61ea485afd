"""How fast nas-gym is, as ratios measured in one run: ``python -m nas_benchmarks.speed``."""
