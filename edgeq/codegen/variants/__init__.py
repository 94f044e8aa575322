"""Lowerings for certain cores and shapes; each package is a core family."""
