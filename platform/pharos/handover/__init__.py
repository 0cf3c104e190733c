"""From a finished sweep to a model in use: find a model by its name, evaluate, promote, roll back, export, chat."""
