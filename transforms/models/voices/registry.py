EMBEDDED = "embedded:hibari"


def open_voice(name, device):
    raise NotImplementedError
