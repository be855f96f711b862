"""Candidates in order: likeness to the concept, faithfulness to the brief, no near-duplicates among the best."""
