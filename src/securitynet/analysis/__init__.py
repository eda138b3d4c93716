"""From raw outputs to what people look at: who is exposed, and figures. No torch: arrays come in."""
