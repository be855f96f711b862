"""From prompts and seeds to pictures: what candidates, evaluation and editing share."""
