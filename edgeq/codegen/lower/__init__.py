"""Portable lowerings, one file an operator family: functions that yield Steps which call firmware/kernels."""
