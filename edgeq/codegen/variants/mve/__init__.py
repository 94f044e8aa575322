"""Kernels for cores with Helium (MVE): Cortex-M55 and M85."""
