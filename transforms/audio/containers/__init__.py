"""What containers of audio say about themselves, read from their structure without decoding a sample."""
