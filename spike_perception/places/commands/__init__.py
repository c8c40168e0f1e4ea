# SPDX-License-Identifier: Apache-2.0
"""Commands ``spike-perception map ...``: look at place maps, take them apart, put them together."""
