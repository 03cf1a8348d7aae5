"""Speaker encoders: vectors that say how alike two voices sound."""
