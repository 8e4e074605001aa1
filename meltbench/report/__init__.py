"""What people see: console tables and JSON of runs."""
