"""metarun and its peers doing the same work, each in a process of its own; scripts/bench.py times them."""
