# SPDX-License-Identifier: Apache-2.0
"""Arrays from sensor data, without any ROS import."""
