"""The networks of the method as plain PyTorch: f_intra, f_inter, f_decode and the functions they are made of."""
