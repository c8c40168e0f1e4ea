# SPDX-License-Identifier: Apache-2.0
"""The spiking networks and the registry that makes them by name."""
