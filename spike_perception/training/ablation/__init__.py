# SPDX-License-Identifier: Apache-2.0
"""The ablation: one student, one recipe, the same labels, one part of the losses after another.

Every run is a pure function of configuration, image set, row and seed, and leaves one file; table,
plot and report are made of those files alone.
"""
