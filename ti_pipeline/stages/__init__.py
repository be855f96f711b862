"""What a stage is, what all of them share, and the stages: one module each. `table` has them in their order."""
