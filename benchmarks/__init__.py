"""Side-by-side measurements: each in one run, as ratios. They need ../shared/speech."""
