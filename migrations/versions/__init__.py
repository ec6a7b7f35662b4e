"""One file for each migration, named by its date."""
