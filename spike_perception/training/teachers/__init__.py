# SPDX-License-Identifier: Apache-2.0
"""Vision-language teachers: any open_clip model, and the training of one where none can be had."""
