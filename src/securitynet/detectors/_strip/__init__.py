"""What STRIP alone needs."""
