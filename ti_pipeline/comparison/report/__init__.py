"""What people see of a comparison: a page, and the figures in it."""
