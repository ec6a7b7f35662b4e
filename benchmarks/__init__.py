"""What we claim, as programs: each measures a running server and prints figures taken in one run."""
