"""The inspector: a web page for browsing and listening to a dataset (`echo-targets inspect`)."""
