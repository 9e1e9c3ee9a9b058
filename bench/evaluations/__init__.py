"""What evaluations promise, by large runs whose every figure is known in advance."""
