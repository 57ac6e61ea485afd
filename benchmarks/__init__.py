"""Records, metrics and figures of searches."""
