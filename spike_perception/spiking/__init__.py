# SPDX-License-Identifier: Apache-2.0
"""Spiking neurons, connections and attention, their unfolding into binary steps, their energy."""
