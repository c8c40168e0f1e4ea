# SPDX-License-Identifier: Apache-2.0
"""Metrics, ground truth and reports: how good an answer is, and how to see it."""
