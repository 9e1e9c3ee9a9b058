"""What budgets promise, one module of scenarios each; ``bench.budget`` runs them."""
