"""Not installed."""

start = prepare = None


def version():
    return None
