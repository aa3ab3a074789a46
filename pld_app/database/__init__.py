"""What the database itself holds: its roles, what each may do, and the guards that must stand in it."""
