# SPDX-License-Identifier: Apache-2.0
"""SVL (arXiv 2505.17674): spiking point networks that learn from a teacher's words and images."""
