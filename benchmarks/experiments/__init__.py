"""Comparisons of results rather than of speed, each with options of its own."""
