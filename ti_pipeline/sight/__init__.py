"""Models that look at pictures: the CLIP that ranks them, and the judge that only measures."""
