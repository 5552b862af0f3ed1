"""How functions become machine code, and stay."""
