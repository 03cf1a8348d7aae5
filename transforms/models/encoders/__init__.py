"""Speech encoders, whose hidden layers give the features of units."""
