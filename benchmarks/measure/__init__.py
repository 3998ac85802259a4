"""A module for each benchmark: who is asked for what, round after round, and the goals."""
