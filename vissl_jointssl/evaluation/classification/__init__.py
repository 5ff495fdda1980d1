"""Classes of whole volumes."""
