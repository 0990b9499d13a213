"""The selective scan: one operator, its readable reference, and the scan orders."""
