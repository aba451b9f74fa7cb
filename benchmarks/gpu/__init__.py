"""What a GPU does with this package: right first, then fast, then training, then the paper at its size."""
