"""How functions become machine code for this host, and stay."""
