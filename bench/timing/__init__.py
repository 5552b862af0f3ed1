"""How a number is made: the plan, the loop over its cases, the workers, the gate before the clock, the null test."""
