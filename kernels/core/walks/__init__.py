"""Through time: a layer forward and back, layers as networks and streams, and who computes what."""
