# SPDX-License-Identifier: Apache-2.0
"""Naming what a spiking encoder sees, by words, without a text tower at run time.

The text side of a vision-language model is folded into one matrix (Rep-VLI, SVL eq. 10 and 11), so
that a class costs one row and a decision costs additions of spike counts.
"""
