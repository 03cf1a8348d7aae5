"""Tables, one file each, with their schemas and the rules that every row must satisfy."""
