"""Numbers that the two papers print, and this data's beside them."""
