"""From raw outputs to what people look at: which records are exposed, and figures. No torch: arrays and frames come in."""
