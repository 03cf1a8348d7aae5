"""Small text corpora that need no download: training sentences and the dialogues of the demo."""
