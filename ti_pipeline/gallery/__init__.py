"""A gallery: pages that open from a disk, a bucket or the server here, with one script and nothing from elsewhere."""
