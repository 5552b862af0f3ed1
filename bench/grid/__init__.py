"""What is timed: cases, the presets that lay them out, and their seeded inputs. A case knows no machine."""
