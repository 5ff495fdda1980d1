"""Segmentation of slices and images by a U-Net whose encoder is f_intra (Tables 3, 5 and 7)."""
