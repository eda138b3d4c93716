"""Results: trial files are the truth; everything else can be rebuilt from them."""
