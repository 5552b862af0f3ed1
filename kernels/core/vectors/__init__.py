"""What one instruction does: the host, the vector and its operations, the activations, products below float32."""
