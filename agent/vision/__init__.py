"""Pure vision functions: preprocessing, decoding, non-maximum suppression."""
