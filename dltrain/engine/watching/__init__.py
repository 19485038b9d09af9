"""`training.watch`: what every layer does in some steps of a training, measured beside it and said in sentences.

    a watched step:  forward pass aside -> activity.py    gradients, weights before and after -> changes.py
    an event:        both as numbers -> judge.py: is a layer ill? -> a Look for recorders and people

Nothing here changes a weight, a statistic of a norm, or what a step draws.
"""
