# SPDX-License-Identifier: Apache-2.0
"""Visual place recognition: descriptors, the durable place map, search, sequences, decision."""
