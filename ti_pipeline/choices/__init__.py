"""What people choose: kept as a log of single decisions, fed back into the ranking, and compared with CLIP's order."""
