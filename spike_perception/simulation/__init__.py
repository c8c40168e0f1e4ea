# SPDX-License-Identifier: Apache-2.0
"""Simulated worlds (SDF), sensors rendered by MuJoCo, and drives written as bags."""
