"""The model under attack: which outputs it shows to which adversary, and how many queries that takes."""
