"""The same loop on many machines, on Dask: `far.py` is what a machine does, `fleet.py` who asks it to."""
