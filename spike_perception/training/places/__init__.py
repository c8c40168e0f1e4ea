# SPDX-License-Identifier: Apache-2.0
"""Training of place descriptors: views of places, losses over pairs, the command."""
