# SPDX-License-Identifier: Apache-2.0
"""Offline training: distillation of spiking students from vision-language teachers."""
