# SPDX-License-Identifier: Apache-2.0
"""ROS 2 nodes: parameters, wiring and lifecycle around rooms that know nothing of ROS."""
