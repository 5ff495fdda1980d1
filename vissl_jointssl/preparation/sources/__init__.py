"""Where sources come from: a folder, a table, a MedMNIST file, and what data sets share in finding their files."""
