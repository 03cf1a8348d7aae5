"""Exports: the same rows in the formats that other trainers and libraries load (`echo-targets export`)."""
