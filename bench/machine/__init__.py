"""What computes: the hardware, its description, its measured peaks, and the roofline that follows from them."""
