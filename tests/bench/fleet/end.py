"""A far end that measures nothing, and waits for a second for the next request."""

import os
import signal
import time

from bench.fleet import far


class Desk:
    def echo(self, value):
        return value

    def who(self):
        return os.getpid()

    def sleep(self, seconds):
        time.sleep(seconds)

    def fail(self):
        raise ValueError("so it\ngoes")

    def die(self):
        print("a last word", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


def main():
    far.Desk, far.IDLE_S = Desk, 1
    far.main()
