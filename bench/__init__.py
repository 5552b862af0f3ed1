"""The harness: verified, interleaved timings of recurrent cells on this machine, and reports of them."""
