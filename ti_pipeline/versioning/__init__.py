"""What a collection was and what came of it: DVC, Git and S3-compatible storage. Nothing else of the library knows of them."""
