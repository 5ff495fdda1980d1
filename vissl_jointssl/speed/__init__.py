"""Measures of speed, each against what a user would run otherwise, in one run and on the same data."""
