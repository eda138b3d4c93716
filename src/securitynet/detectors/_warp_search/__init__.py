"""What the detector `warp-search` needs alone."""
