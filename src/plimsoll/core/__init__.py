"""The nouns that everything else is made of: models, targets, budgets."""
