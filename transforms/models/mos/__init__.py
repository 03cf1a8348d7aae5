"""Predictors of mean opinion scores (MOS): how good a listener would find the sound."""
