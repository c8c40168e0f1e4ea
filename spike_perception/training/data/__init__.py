# SPDX-License-Identifier: Apache-2.0
"""Image sets as the data sets lay them out: folders and zip files, with labels and captions."""
