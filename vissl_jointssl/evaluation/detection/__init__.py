"""Detection in images by a Faster R-CNN on the pre-trained ResNet-50."""
