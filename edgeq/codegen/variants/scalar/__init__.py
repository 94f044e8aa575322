"""Kernels for cores without DSP instructions: ARMv6-M (Cortex-M0, M0+, M1) and ARMv7-M (Cortex-M3)."""
