"""`python -m tests.kernels.forking`: processes that are forked while another thread makes its first call.

A lock that the caller holds at that moment is locked for ever in the child.
"""

import os
import signal
import threading
import time

import numba
from numba.np.ufunc import parallel

from kernels import rnn
from kernels.core.walks import recurrence
from tests.kernels.cells import SMALL
from tests.kernels.compare import DTYPES, draw


def main():
    params, x, *_ = draw(rnn, SMALL, DTYPES[0])
    rnn.infer(params, x)
    recurrence.WORTH_SHARING = 1  # from here on calls ask how many threads there may be

    launch = parallel._load_threading_functions

    def launch_slowly(library):  # under Numba's locks
        time.sleep(0.5)
        launch(library)

    parallel._load_threading_functions = launch_slowly
    caller = threading.Thread(target=rnn.infer, args=(params, x))
    caller.start()
    time.sleep(0.1)
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            signal.alarm(20)
            numba.set_num_threads(1)
            rnn.infer(params, x)
            os._exit(0)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    caller.join()
    assert not any(statuses), statuses


if __name__ == "__main__":
    main()
