"""A gallery: a folder of plain pages that opens from a disk, a bucket or a server, with no script and no network."""
