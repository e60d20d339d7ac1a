"""What MODEL means, and pictures answered by it: one at a time, or as a stream."""
