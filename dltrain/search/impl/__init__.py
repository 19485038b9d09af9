"""How samplers draw: the code that imports Optuna, torch and cmaes."""
