"""The embedded stack behind `./dev`: Postgres, Valkey and the product's own processes on one machine.

Holds no Django import: it runs before settings can be read, and hands them over as environment variables.
"""
