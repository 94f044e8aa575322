"""Cores with the DSP extension (Cortex-M4, M7, M33): two 16-bit products in one instruction.

gemm: the micro-kernel of all convolutions, two pixels by four channels. convolution, fully_connected, depthwise (3x3),
depthwise_window (any window), elementwise, pooling: one file a kernel family; each says its data layout, register plan,
loop and obligations on top.
"""
