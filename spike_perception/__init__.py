# SPDX-License-Identifier: Apache-2.0
"""Low-power perception for ROS 2: spiking networks distilled from vision-language models."""

__version__ = "0.1.0"
