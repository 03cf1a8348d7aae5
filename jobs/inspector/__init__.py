"""`echo-targets inspect`: a page to look at a dataset and to listen to it."""
