"""Tables: one file a table, with its schema and the rules that every row must keep."""
