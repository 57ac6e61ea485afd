"""The published Markov decision processes, one file each, over the mechanics in `core`."""
