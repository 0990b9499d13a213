"""Building blocks of segmentation networks: each file holds one component, spec above module."""
