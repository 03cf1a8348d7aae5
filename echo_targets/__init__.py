"""The pipeline that makes the training data of echo-trained speech-to-speech models."""
