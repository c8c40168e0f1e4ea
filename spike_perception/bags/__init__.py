# SPDX-License-Identifier: Apache-2.0
"""Reading and writing rosbags and image folders; no ROS installation needed."""
