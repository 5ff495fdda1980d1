"""One recipe per data set; each takes the folder where its files lie and downloads nothing."""
