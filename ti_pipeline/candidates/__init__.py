"""Pictures of learnt words: briefs, seeds, sampling, files with their recipe inside."""
