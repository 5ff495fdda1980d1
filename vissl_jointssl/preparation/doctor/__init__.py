"""What is wrong with a folder of scans or a prepared one, and whether training may start."""
