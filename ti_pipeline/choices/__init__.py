"""What people choose: kept as a log of single decisions, brought back to the ranking, and held against CLIP's order."""
