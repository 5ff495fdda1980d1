"""The training objectives as plain PyTorch functions; small modules only where there is state to keep."""
