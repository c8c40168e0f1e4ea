# SPDX-License-Identifier: Apache-2.0
"""VL2Spike (arXiv 2606.15898): losses that distil a vision-language model into a spiking student.

Its abstract names two parts: SVS, a shared manifold of image features and spike tokens with
warm-started temporal consistency of membrane potentials and spike rates, and SPL, prototypes and
logits aligned with promptable text embeddings. The formulas in this package are our reading; the
paper's own were not public when they were written.
"""
