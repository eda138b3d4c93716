"""Models: references and safe loading, targets behind an access-enforcing interface, cached signals, training."""
