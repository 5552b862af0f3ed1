"""What one instruction does: the vector and its operations, the activations, products below float32."""
